import numpy as np
import pytest
from PIL import Image

from panomask.errors import InputError
from panomask.semantic_png import read_cityscapes_ids, read_semantic_labels, write_semantic_labels

LABELS = np.array([[0, 1, 2], [3, 200, 255]], dtype=np.uint8)


def _palette():
    image = Image.new("P", (3, 2))
    image.putdata(LABELS.reshape(-1).tolist())
    image.putpalette([value for i in range(256) for value in (255 - i, i // 2, 7)])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(LABELS),
        _palette(),
        Image.fromarray(LABELS.astype(np.uint16)),
        Image.fromarray(np.stack([LABELS] * 3, axis=2)),
        Image.fromarray(LABELS).convert("LA"),
    ],
    ids=lambda image: image.mode,
)
def test_labels_of_every_kind_of_file(tmp_path, image):
    image.save(tmp_path / "a.png")
    labels = read_semantic_labels(tmp_path / "a.png", (2, 3))
    np.testing.assert_array_equal(labels, LABELS)


def test_black_and_white_is_0_and_1(tmp_path):
    Image.fromarray(LABELS > 2).save(tmp_path / "a.png")
    labels = read_semantic_labels(tmp_path / "a.png")
    assert labels.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert labels.dtype == np.uint8


def test_16_bits_hold_labels_beyond_255(tmp_path):
    Image.fromarray(np.array([[300, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_semantic_labels(tmp_path / "a.png").tolist() == [[300, 65535]]


def test_wrong_files_are_named(tmp_path):
    Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match=r"colour\.png: .*'RGB' with colours.*PANOPTIC_ROOT"):
        read_semantic_labels(tmp_path / "colour.png")
    Image.fromarray(LABELS.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(InputError, match=r"float\.tiff: an image of mode 'F', but .* whole numbers"):
        read_semantic_labels(tmp_path / "float.tiff")
    Image.fromarray(LABELS).save(tmp_path / "size.png")
    with pytest.raises(InputError, match=r"size\.png: 3 x 2 .* its image is 2 x 3"):
        read_semantic_labels(tmp_path / "size.png", (3, 2))
    Image.fromarray(LABELS).save(tmp_path / "jpeg.png", format="JPEG")
    with pytest.raises(InputError, match=r"jpeg\.png: a JPEG file, .* write them as PNG"):
        read_semantic_labels(tmp_path / "jpeg.png")
    with pytest.raises(InputError, match=r"none\.png"):
        read_semantic_labels(tmp_path / "none.png")


def test_what_is_written_is_read(tmp_path):
    write_semantic_labels(tmp_path / "a.png", LABELS.astype(np.int64))
    np.testing.assert_array_equal(read_semantic_labels(tmp_path / "a.png"), LABELS)
    with pytest.raises(InputError, match="labels from 0 to 256; 8 bits hold 0 to 255"):
        write_semantic_labels(tmp_path / "b.png", np.array([[0, 256]]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_ids_of_cityscapes_are_whole_numbers_of_one_channel(tmp_path):
    path = tmp_path / "a_instanceIds.png"
    Image.fromarray(np.array([[26001, 7]], dtype=np.uint16)).save(path)
    ids = read_cityscapes_ids(path)
    assert ids.tolist() == [[26001, 7]]
    assert ids.dtype == np.int64
    Image.new("RGB", (2, 1)).save(path)
    with pytest.raises(InputError, match=r"a_instanceIds\.png: has 3 colours; one number a pixel is needed"):
        read_cityscapes_ids(path)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a_instanceIds\.png: cannot be read as an image"):
        read_cityscapes_ids(path)
    path.unlink()
    with pytest.raises(InputError, match=r"a_instanceIds\.png: file does not exist; unpack gtFine"):
        read_cityscapes_ids(path)
