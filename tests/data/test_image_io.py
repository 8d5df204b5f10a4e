import multiprocessing
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from panomask.data.image_io import (
    SizeMismatchError,
    check_image_size,
    convert_image_to_rgb,
    convert_PIL_to_numpy,
    image_to_tensor,
    read_image,
    read_image_size,
)
from panomask.data.transforms import ResizeTransform
from panomask.errors import InputError

UPRIGHT = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)

# How a camera stores the upright image under each EXIF orientation (Exif 2.3, table 6)
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[:, ::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[::-1].transpose(1, 0, 2),
}


def _save(path, array, **kwargs):
    Image.fromarray(np.ascontiguousarray(array)).save(path, **kwargs)
    return str(path)


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_undone(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = _save(tmp_path / "a.png", STORED[orientation](UPRIGHT), exif=exif)
    np.testing.assert_array_equal(read_image(file, "RGB"), UPRIGHT)
    assert read_image_size(file) == UPRIGHT.shape[:2]


def test_size_of_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: image file does not exist"):
        read_image_size(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
        read_image_size(tmp_path / "a.png")


def test_unknown_orientation_and_damaged_exif_are_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 17
    np.testing.assert_array_equal(read_image(_save(tmp_path / "a.png", UPRIGHT, exif=exif), "RGB"), UPRIGHT)
    file = _save(tmp_path / "b.jpg", UPRIGHT, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert read_image(file, "RGB").shape == (4, 6, 3)


def test_formats(tmp_path):
    file = _save(tmp_path / "a.png", UPRIGHT)
    np.testing.assert_array_equal(read_image(file, "BGR"), UPRIGHT[..., ::-1])
    np.testing.assert_array_equal(read_image(file), UPRIGHT)
    assert read_image(file, "L").shape == (4, 6, 1)
    yuv = read_image(file, "YUV-BT.601")
    # Y of BT.601, by hand for the first pixel
    red, green, blue = UPRIGHT[0, 0] / 255.0
    assert yuv[0, 0, 0] == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue)


@pytest.mark.parametrize("format", ["RGB", "BGR", "YUV-BT.601", "HSV"])
def test_conversion_to_rgb_is_the_inverse(format):
    image = convert_PIL_to_numpy(Image.fromarray(UPRIGHT), format)
    error = np.abs(convert_image_to_rgb(image, format).astype(int) - UPRIGHT)
    assert error.max() <= (4 if format == "HSV" else 0)


def test_conversion_to_rgb_of_grey_and_tensors():
    grey = convert_PIL_to_numpy(Image.fromarray(UPRIGHT), "L")
    assert (convert_image_to_rgb(grey, "L") == grey).all()
    assert convert_image_to_rgb(grey, "L").shape == (4, 6, 3)
    bgr = torch.from_numpy(UPRIGHT[..., ::-1].copy())
    np.testing.assert_array_equal(convert_image_to_rgb(bgr, "BGR"), UPRIGHT)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "LA"])
def test_any_eight_bit_file_becomes_bgr(tmp_path, mode):
    path = tmp_path / "a.tiff"
    Image.fromarray(UPRIGHT).convert(mode).save(path)
    assert read_image(path, "BGR").shape == (4, 6, 3)


def _assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "gone.jpg", "BGR")
    _assert_one_line(error, "gone.jpg", "does not exist")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path, "BGR")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_truncated_file(tmp_path, suffix, part):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    data = open(_save(path, noise), "rb").read()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError) as error:
        read_image(path, "BGR")
    _assert_one_line(error, "cut.", "cannot be read", "replace the file, or leave it out")
    assert "annotation" not in str(error.value)  # there are none where one predicts


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xd8\xff\xe0 not really a jpeg", b"\x89PNG\r\n\x1a\n...."]
)
def test_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(path, "BGR")
    _assert_one_line(error, "odd.jpg", "cannot be read as an image")


def test_sixteen_bits_are_not_cut_silently(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(UPRIGHT[..., 0].astype(np.uint16) * 100).save(path)
    with pytest.raises(InputError, match=r"deep\.png.*8 bits"):
        read_image(path, "BGR")
    assert read_image(path).max() > 255


def test_image_size_limit(tmp_path, monkeypatch, recwarn):
    file = _save(tmp_path / "a.png", UPRIGHT)  # 24 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13)  # PIL warns above 13, refuses above 26
    assert read_image(file, "RGB").shape == (4, 6, 3)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)
    with pytest.raises(InputError) as error:
        read_image(file, "RGB")
    _assert_one_line(error, "a.png", "megapixels", "MAX_IMAGE_PIXELS")


VIEWS = {
    "whole": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned": lambda image: np.rot90(image),
    "other colours first": lambda image: image[:, ::-1, ::-1],
    "window": lambda image: image[1:3, 2:5],
    "mirrored window": lambda image: image[1:3, 4:1:-1],
    "every second": lambda image: image[::2, ::-2],
    "turned around": lambda image: image[::-1, ::-1],
    "all backwards": lambda image: image[::-1, ::-1, ::-1],
    "one channel": lambda image: image[..., :1],
    "one channel, mirrored": lambda image: image[:, ::-1, :1],
    "five channels, mirrored": lambda image: image[:, ::-1, [0, 1, 2, 0, 1]],
    "one pixel, mirrored": lambda image: image[:1, :1][::-1, ::-1],
    "one row, mirrored": lambda image: image[:1, ::-1],
    "one column, upside down": lambda image: image[::-1, :1],
    "two channels": lambda image: image[..., 1:],
    "one pixel": lambda image: image[:1, :1],
    "planes in memory": lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
@pytest.mark.parametrize("view", VIEWS)
def test_image_to_tensor_takes_any_view(view, dtype):
    image = VIEWS[view](UPRIGHT.astype(dtype))
    image.flags.writeable = False  # as PIL's are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = image_to_tensor(image)
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.numpy(), image.transpose(2, 0, 1))
    assert tensor.numpy().dtype == dtype
    tensor[:] = 0
    assert image.max() > 0  # memory of its own


def test_image_to_tensor_takes_what_opencv_does_not():
    for shape in ((2, 3, 200), (2, 3, 0), (0, 3, 3), (2, 0, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for view in (image, image[:, ::-1]):
            np.testing.assert_array_equal(image_to_tensor(view).numpy(), view.transpose(2, 0, 1))
    with pytest.raises(InputError, match=r"shape \(4, 6\).*format 'L'") as error:
        image_to_tensor(UPRIGHT[..., 0])
    _assert_one_line(error)


def _augment_and_say_so(queue, channels):
    image = np.zeros((800, 1000, channels), np.uint8)
    resized = ResizeTransform(800, 1000, 900, 1100).apply_image(image)
    queue.put(image_to_tensor(resized[:, ::-1]).shape)


@pytest.mark.parametrize("channels", [3, 5])
def test_a_forked_process_does_not_wait_for_threads(channels):
    """OpenMP's threads stay behind in the parent; who forks without a loader does not limit torch to one."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.rand(1000, 1000).add(1).sum()  # starts them
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=_augment_and_say_so, args=(queue, channels))
        process.start()
        try:
            assert queue.get(timeout=60) == (channels, 900, 1100)
        finally:
            process.kill()
            process.join()
    finally:
        torch.set_num_threads(num_threads)


def test_bgr_is_an_array_like_any_other(tmp_path):
    image = read_image(_save(tmp_path / "a.png", UPRIGHT), "BGR")
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("format", ["RGB", "BGR"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("is_progressive", [False, True])
def test_jpeg_pixels_are_those_of_pil(tmp_path, format, subsampling, is_progressive):
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    options = {"quality": 90, "subsampling": subsampling, "progressive": is_progressive}
    file = _save(tmp_path / "a.jpg", noise, **options)
    expected = np.asarray(Image.open(file))
    np.testing.assert_array_equal(read_image(file, format)[..., :: 1 if format == "RGB" else -1], expected)


def test_check_image_size():
    item = {"file_name": "a.png"}
    check_image_size(item, UPRIGHT)
    assert (item["height"], item["width"]) == (4, 6)
    check_image_size(item, UPRIGHT)
    with pytest.raises(SizeMismatchError) as error:
        check_image_size({"file_name": "a.png", "height": 5, "width": 6}, UPRIGHT)
    _assert_one_line(error, "a.png", "6 x 4", "6 x 5")
    assert "EXIF" not in str(error.value)
    with pytest.raises(SizeMismatchError, match="EXIF"):
        check_image_size({"file_name": "a.png", "height": 6, "width": 4}, UPRIGHT)
