import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from panomask.data import transforms as T
from panomask.data.transforms.transform import ring_area

SQUARE = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])


def _image(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_crop_clips_polygon_to_window():
    (clipped,) = T.CropTransform(6, 2, 100, 3).apply_polygons([SQUARE])
    # x in [6, 10], y in [2, 5] of the image: a rectangle of 4 x 3 whose corner is the window's origin
    assert sorted(map(tuple, clipped)) == [(0, 0), (0, 3), (4, 0), (4, 3)]


def test_crop_cuts_a_diagonal_in_the_middle():
    triangle = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    (clipped,) = T.CropTransform(0, 0, 4, 8).apply_polygons([triangle])
    # Half of the square of side 8 (32) without the small triangle x > 4 (8)
    assert ring_area(clipped) == pytest.approx(24)
    assert (4, 4) in set(map(tuple, clipped))


def test_crop_of_concave_polygon_keeps_the_area_of_both_parts():
    # A "U": a block of 9 x 9 with a slot of 3 x 6 from the top
    u_shape = np.array([[0, 0], [3, 0], [3, 6], [6, 6], [6, 0], [9, 0], [9, 9], [0, 9]], dtype=float)
    (clipped,) = T.CropTransform(0, 0, 9, 5).apply_polygons([u_shape])
    assert ring_area(clipped) == pytest.approx(2 * 3 * 5)


def test_crop_drops_what_is_outside_or_only_touches():
    assert T.CropTransform(20, 20, 5, 5).apply_polygons([SQUARE]) == []
    assert T.CropTransform(10, 0, 5, 5).apply_polygons([SQUARE]) == []
    assert T.CropTransform(0, 0, 5, 5).apply_polygons([]) == []


def test_crop_leaves_inner_polygons_and_its_input_alone():
    polygon = SQUARE + 5
    (clipped,) = T.CropTransform(2, 3, 50, 50).apply_polygons([polygon.copy()])
    np.testing.assert_array_equal(clipped, polygon - [2, 3])


def test_crop_and_pad_invert_each_other():
    points = np.array([[3.0, 4.0], [7.0, 1.0]])
    crop = T.CropTransform(1, 2, 5, 4, orig_w=20, orig_h=10)
    np.testing.assert_array_equal(crop.inverse().apply_coords(crop.apply_coords(points.copy())), points)
    assert isinstance(crop.inverse().inverse(), T.CropTransform)
    assert crop.inverse().apply_image(np.ones((4, 5, 3))).shape == (10, 20, 3)


METHODS = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_resize_uint8_treats_channels_alike(channels, method):
    image = _image(7, 9, channels)
    resized = T.ResizeTransform(7, 9, 14, 13, method).apply_image(image)
    assert resized.shape == (14, 13, channels)
    for c in range(channels):
        alone = Image.fromarray(np.ascontiguousarray(image[..., c])).resize((13, 14), method)
        if method == Image.Resampling.BILINEAR:
            _assert_one_grey_level(resized[..., c], np.asarray(alone))
        else:
            np.testing.assert_array_equal(resized[..., c], np.asarray(alone))


def _assert_one_grey_level(resized, expected):
    assert resized.dtype == np.uint8
    assert resized.shape == expected.shape
    assert np.abs(resized.astype(int) - expected).max() <= 1


SIZES = [
    *((480, 640, 800, 1067), (640, 480, 1067, 800), (427, 640, 200, 300), (37, 53, 91, 20)),  # up, down, both
    *(
        (1, 1, 5, 7),
        (1, 9, 3, 1),
        (9, 1, 1, 3),
        (2, 3, 1, 1),
        (5, 4, 5, 4),
        (13, 7, 13, 8),
    ),  # one pixel, same
    *((3, 10000, 2, 1333), (10000, 3, 800, 2), (3, 10000, 1, 1), (2, 3, 3, 9999)),  # long
]


@pytest.mark.parametrize("kind", ["noise", "black and white", "stripes", "white"])
@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=["grey", "one channel", "colour"])
@pytest.mark.parametrize("h, w, new_h, new_w", SIZES)
def test_resized_pixels_are_those_of_pil_to_one_grey_level(h, w, new_h, new_w, shape, kind):
    generator = np.random.default_rng(h * w)
    image = {
        "noise": generator.integers(0, 256, (h, w, *shape)),
        "black and white": generator.integers(0, 2, (h, w, *shape)) * 255,
        "stripes": np.broadcast_to(np.arange(w).reshape(1, w, *[1] * len(shape)) % 2 * 255, (h, w, *shape)),
        "white": np.full((h, w, *shape), 255),
    }[kind].astype(np.uint8)
    before = image.copy()
    resized = T.ResizeTransform(h, w, new_h, new_w).apply_image(image)
    flat = image[..., 0] if shape == (1,) else image
    expected = np.asarray(Image.fromarray(flat).resize((new_w, new_h), Image.Resampling.BILINEAR))
    _assert_one_grey_level(resized, expected.reshape(new_h, new_w, *shape))
    assert resized.flags.c_contiguous  # as all other arrays of images are
    np.testing.assert_array_equal(image, before)
    if kind == "white":
        assert (resized == 255).all()


@pytest.mark.parametrize("seed", range(40))
def test_resizing_between_random_sizes(seed):
    generator = np.random.default_rng(seed)
    (h, w), (new_h, new_w) = generator.integers(1, 300, (2, 2)).tolist()
    resized, expected = _resize_both(h, w, new_h, new_w, seed)
    _assert_one_grey_level(resized, expected)


@pytest.mark.parametrize("scale", [400 / 480, 1.25, 800 / 480, 2.0])
@pytest.mark.parametrize("h, w", [(480, 640), (640, 427)])
def test_at_one_scale_few_pixels_differ_from_pil(h, w, scale):
    """Noise is the hardest. (Where one side grows and the other shrinks, versions of PIL differ in more.)"""
    resized, expected = _resize_both(h, w, round(scale * h), round(scale * w))
    _assert_one_grey_level(resized, expected)
    assert (resized != expected).mean() < 0.02


def _resize_both(h, w, new_h, new_w, seed=0):
    image = _image(h, w, seed=seed)
    expected = Image.fromarray(image).resize((new_w, new_h), Image.Resampling.BILINEAR)
    return T.ResizeTransform(h, w, new_h, new_w).apply_image(image), np.asarray(expected)


def test_resize_takes_arrays_that_cannot_be_written():
    image = _image(6, 8)
    expected = T.ResizeTransform(6, 8, 3, 4).apply_image(image)
    image.flags.writeable = False
    torch.set_warn_always(True)  # else only the first of such arrays would be warned of
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            resized = T.ResizeTransform(6, 8, 3, 4).apply_image(image)
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(resized, expected)
    resized[:] = 0  # and gives one that can


WITHOUT_AVX = """
import os, signal
import numpy as np
import torch
from PIL import Image
from panomask.data.transforms.transform import ResizeTransform

assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"

def check(shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    resized = ResizeTransform(*shape[:2], *size).apply_image(image)
    expected = np.asarray(Image.fromarray(image.squeeze()).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resized.astype(int) - expected.reshape(resized.shape)).max() <= 1

torch.set_num_threads(1)
check((9, 7, 1), (5, 1))
check((9, 7), (5, 1))
check((90, 70, 3), (50, 40))
torch.set_num_threads(2)
torch.rand(1000, 1000).add(1).sum()  # starts threads, which a forked process has not
child = os.fork()
if child == 0:
    signal.alarm(20)
    check((800, 1000, 3), (900, 1100))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_resize_where_torch_has_no_kernel_for_the_processor():
    """The general kernel starts threads, and reads one channel wrongly where the new width is 1."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", WITHOUT_AVX]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_resize_accepts_flipped_views():
    image = _image(6, 8)
    resize = T.ResizeTransform(6, 8, 3, 4)
    np.testing.assert_array_equal(
        resize.apply_image(image[:, ::-1]), resize.apply_image(image[:, ::-1].copy())
    )
    floats = image[:, ::-1].astype(np.float32)
    assert resize.apply_image(floats).shape == (3, 4, 3)


def test_resize_float_interpolates_between_pixel_centres():
    row = np.array([[0.0, 4.0]], dtype=np.float32)
    # Four target centres at source 0.25, 0.75, 1.25, 1.75; pixel centres at 0.5 (value 0) and 1.5 (value 4)
    np.testing.assert_allclose(T.ResizeTransform(1, 2, 1, 4).apply_image(row), [[0, 1, 3, 4]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool, np.float32])
def test_resize_segmentation_takes_nearest_pixels_of_any_dtype(dtype):
    labels = np.random.default_rng(1).integers(0, 2, (37, 53))
    expected = np.asarray(Image.fromarray(labels.astype(np.uint8)).resize((20, 91), Image.Resampling.NEAREST))
    resized = T.ResizeTransform(37, 53, 91, 20).apply_segmentation(labels.astype(dtype))
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized.astype(np.uint8), expected)


@pytest.mark.parametrize("size, new_size", [(4, 6), (2, 7), (4, 30), (53, 20), (1, 5), (480, 800)])
def test_resize_of_labels_is_that_of_pil_where_centres_fall_on_borders_too(size, new_size):
    row = np.arange(size, dtype=np.int32)[None]
    expected = np.asarray(Image.fromarray(row).resize((new_size, 1), Image.Resampling.NEAREST))
    found = T.ResizeTransform(1, size, 1, new_size).apply_segmentation(row)
    np.testing.assert_array_equal(found, expected)


def test_resize_scales_coordinates_and_boxes():
    resize = T.ResizeTransform(10, 20, 30, 10)
    np.testing.assert_allclose(resize.apply_coords(np.array([[4.0, 2.0]])), [[2, 6]])
    np.testing.assert_allclose(resize.apply_box(np.array([[0.0, 0.0, 20.0, 10.0]])), [[0, 0, 10, 30]])
    np.testing.assert_allclose(resize.inverse().apply_coords(np.array([[2.0, 6.0]])), [[4, 2]])


def test_extent_cuts_and_scales():
    image = _image(8, 8)
    extent = T.ExtentTransform((2, 4, 6, 8), (4, 4))
    np.testing.assert_array_equal(extent.apply_image(image), image[4:8, 2:6])
    np.testing.assert_array_equal(extent.apply_image(image[..., :1]), image[4:8, 2:6, :1])
    double = T.ExtentTransform((2, 4, 6, 8), (8, 8))
    np.testing.assert_allclose(double.apply_coords(np.array([[3.0, 8.0]])), [[2, 8]])
    beyond = T.ExtentTransform((-4, 0, 4, 8), (8, 8), fill=0).apply_segmentation(np.ones((8, 8), np.uint8))
    assert beyond[:, :4].sum() == 0
    assert beyond[:, 4:].all()


def test_rotation_by_90_degrees_moves_pixels_and_points_together():
    image = np.zeros((4, 6, 1), np.uint8)
    image[1, 4] = 255  # centre at (4.5, 1.5)
    rotation = T.RotationTransform(4, 6, 90)
    rotated = rotation.apply_image(image)
    assert rotated.shape == (6, 4, 1)
    # Counter-clockwise: x' = y, y' = width - x
    np.testing.assert_allclose(rotation.apply_coords(np.array([[4.5, 1.5]])), [[1.5, 1.5]], atol=1e-9)
    assert np.argwhere(rotated[..., 0] == 255).tolist() == [[1, 1]]
    labels = rotation.apply_segmentation(image[..., 0].astype(np.int64) * 1000)
    assert labels.dtype == np.int64
    assert labels[1, 1] == 255000


def test_rotation_inverse_restores_points():
    rotation = T.RotationTransform(50, 80, 33)
    points = np.array([[10.0, 20.0], [79.0, 3.0]])
    back = rotation.inverse().apply_coords(rotation.apply_coords(points.copy()))
    np.testing.assert_allclose(back, points, atol=1)  # the margin is cut in whole pixels
    with pytest.raises(NotImplementedError, match="no inverse"):
        T.RotationTransform(50, 80, 33, expand=False).inverse()


def test_rotation_around_a_point_keeps_it():
    rotation = T.RotationTransform(50, 80, 120, expand=False, center=(20, 30))
    np.testing.assert_allclose(rotation.apply_coords(np.array([[20.0, 30.0]])), [[20, 30]])
    assert rotation.apply_image(_image(50, 80)).shape == (50, 80, 3)


def test_colour_transforms_touch_pixels_alone():
    image = _image(4, 4)
    inverted = T.ColorTransform(lambda x: 255 - x)
    np.testing.assert_array_equal(inverted.apply_image(image), 255 - image)
    assert inverted.apply_coords(SQUARE) is SQUARE
    grey = T.PILColorTransform(lambda x: x.convert("L").convert("RGB")).apply_image(image)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert isinstance(inverted.inverse(), T.NoOpTransform)
