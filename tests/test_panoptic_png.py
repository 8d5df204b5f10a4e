import numpy as np
import pytest
from PIL import Image

from panomask.errors import InputError
from panomask.panoptic_png import decode_segment_ids, read_segment_ids, write_segment_ids


def test_an_id_is_red_and_256_green_and_65536_blue(tmp_path):
    path = tmp_path / "segments.png"
    Image.fromarray(np.array([[[3, 0, 0], [0, 2, 0], [1, 1, 1]]], dtype=np.uint8)).save(path)
    np.testing.assert_array_equal(read_segment_ids(path), [[3, 512, 65793]])


def test_what_is_written_is_read(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**24, (37, 21))
    write_segment_ids(tmp_path / "a.png", ids)
    back = read_segment_ids(tmp_path / "a.png", size=(37, 21))
    np.testing.assert_array_equal(back, ids)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(decode_segment_ids((tmp_path / "a.png").read_bytes()), ids)


@pytest.mark.parametrize("ids", [[[-1]], [[2**24]]])
def test_ids_that_are_no_colour_are_refused(tmp_path, ids):
    with pytest.raises(InputError, match="a PNG holds 0 to 16777215"):
        write_segment_ids(tmp_path / "a.png", np.array(ids))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "grey-scale"), ("P", "palette"), ("I;16", "grey-scale"), ("RGBA", "transparency")],
)
def test_other_modes_are_refused(tmp_path, mode, name):
    path = tmp_path / "segments.png"
    Image.new(mode, (4, 3)).save(path)
    with pytest.raises(InputError, match=rf"segments\.png: .*{name}.*id = R \+ 256 G"):
        read_segment_ids(path)


def test_a_jpeg_file_is_refused(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "segments.png", format="JPEG")
    with pytest.raises(InputError, match=r"segments\.png: a JPEG file, .* write them as PNG"):
        read_segment_ids(tmp_path / "segments.png")


def test_another_size_is_refused(tmp_path):
    write_segment_ids(tmp_path / "a.png", np.zeros((3, 4), dtype=np.int32))
    with pytest.raises(InputError, match=r"a\.png: 4 x 3 \(width x height\), but its image is 3 x 4"):
        read_segment_ids(tmp_path / "a.png", size=(4, 3))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: image file does not exist"):
        read_segment_ids(tmp_path / "none.png")
