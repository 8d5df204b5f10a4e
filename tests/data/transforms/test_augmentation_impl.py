import numpy as np
import pytest

from panomask.data import transforms as T

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)


def _draw(aug, times=200, image=IMAGE):
    return [aug.get_transform(image) for _ in range(times)]


def test_flip_probability_and_direction():
    flips = _draw(T.RandomFlip(prob=0.25), 400)
    share = np.mean([isinstance(flip, T.HFlipTransform) for flip in flips])
    assert 0.15 < share < 0.35
    (flip,) = _draw(T.RandomFlip(prob=1, horizontal=False, vertical=True), 1)
    assert isinstance(flip, T.VFlipTransform)
    with pytest.raises(ValueError, match="exactly one"):
        T.RandomFlip(horizontal=True, vertical=True)


@pytest.mark.parametrize(
    "old,short,longest,new",
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 1000), 800, 1333, (400, 1333)),  # limited by the longest edge: scale 1.333
        ((500, 500), 250, 9999, (250, 250)),
        ((3000, 1), 160, 240, (240, 1)),
    ],
)
def test_shortest_edge_output_shape(old, short, longest, new):
    assert T.ResizeShortestEdge.get_output_shape(*old, short, longest) == new


def test_shortest_edge_draws_range_or_choice():
    heights = {t.new_h for t in _draw(T.ResizeShortestEdge((20, 24), sample_style="range"))}
    assert heights == {20, 21, 22, 23, 24}
    heights = {t.new_h for t in _draw(T.ResizeShortestEdge((20, 24), sample_style="choice"))}
    assert heights == {20, 24}
    assert isinstance(_draw(T.ResizeShortestEdge(0), 1)[0], T.NoOpTransform)
    with pytest.raises(ValueError, match="sample_style"):
        T.ResizeShortestEdge(20, sample_style="list")


def test_resize_to_fixed_or_listed_shapes():
    (resize,) = _draw(T.Resize((10, 30)), 1)
    assert (resize.new_h, resize.new_w) == (10, 30)
    shapes = {(t.new_h, t.new_w) for t in _draw(T.RandomResize([(10, 20), (30, 40)]))}
    assert shapes == {(10, 20), (30, 40)}


def test_resize_scale_fits_into_the_scaled_target():
    for resize in _draw(T.ResizeScale(0.5, 2.0, 100, 100)):
        assert 50 <= max(resize.new_h, resize.new_w) <= 200
        assert resize.new_h / resize.new_w == pytest.approx(40 / 60, abs=0.02)


def test_fixed_size_crop_crops_and_pads():
    transforms = T.FixedSizeCrop((50, 30), pad_value=7).get_transform(IMAGE)
    image = transforms.apply_image(IMAGE)
    assert image.shape == (50, 30, 3)
    assert (image[40:] == 7).all()
    labels = transforms.apply_segmentation(np.zeros((40, 60), np.uint8))
    assert (labels[40:] == 255).all()
    assert (labels[:40] == 0).all()
    assert T.FixedSizeCrop((50, 30), pad=False).get_transform(IMAGE).apply_image(IMAGE).shape == (40, 30, 3)


@pytest.mark.parametrize(
    "crop_type,size,heights,widths",
    [
        ("absolute", (10, 99), (10, 10), (60, 60)),
        ("relative", (0.5, 0.25), (20, 20), (15, 15)),
        ("absolute_range", (10, 50), (10, 40), (10, 50)),
        ("relative_range", (0.5, 0.9), (20, 40), (54, 60)),
    ],
)
def test_random_crop_sizes(crop_type, size, heights, widths):
    crops = _draw(T.RandomCrop(crop_type, size))
    assert heights[0] <= min(c.h for c in crops) <= max(c.h for c in crops) <= heights[1]
    assert widths[0] <= min(c.w for c in crops) <= max(c.w for c in crops) <= widths[1]
    assert all(c.apply_image(IMAGE).shape == (c.h, c.w, 3) for c in crops)


def test_random_crop_refuses_nonsense():
    with pytest.raises(ValueError, match="crop_type"):
        T.RandomCrop("half", (1, 1))
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        T.RandomCrop("relative", (384, 600))


def test_category_constraint_finds_a_window_with_two_categories():
    sem_seg = np.zeros((40, 60), np.uint8)
    sem_seg[:, 30:] = 1
    aug = T.RandomCrop_CategoryAreaConstraint("absolute", (10, 10), single_category_max_area=0.95)
    shares = [aug.get_transform(IMAGE, sem_seg).apply_segmentation(sem_seg).mean() for _ in range(50)]
    plain = T.RandomCrop_CategoryAreaConstraint("absolute", (10, 10))
    plain_shares = [plain.get_transform(IMAGE, sem_seg).apply_segmentation(sem_seg).mean() for _ in range(50)]
    assert np.mean(np.isin(shares, (0, 1))) < 0.5 < np.mean(np.isin(plain_shares, (0, 1)))


def test_rotation_draws_angles_and_centres():
    angles = [t.angle for t in _draw(T.RandomRotation((-10, 10)))]
    assert -10 <= min(angles) < -5
    assert 5 < max(angles) <= 10
    assert {t.angle for t in _draw(T.RandomRotation([90, 270], sample_style="choice"))} == {90, 270}
    (rotation,) = _draw(T.RandomRotation(45, expand=False, center=(0.25, 0.5)), 1)
    assert rotation.center == (15, 20)
    assert isinstance(_draw(T.RandomRotation(0), 1)[0], T.NoOpTransform)


def test_extent_scales_around_the_centre():
    (extent,) = _draw(T.RandomExtent((0.5, 0.5), (0, 0)), 1)
    assert extent.src_rect == (15, 10, 45, 30)
    assert extent.output_size == (20, 30)


def test_colour_augmentations_at_weight_half():
    pixel = np.full((1, 2, 3), 100, np.uint8)
    pixel[0, 1] = 200
    half = [
        aug(0.5, 0.5).get_transform(pixel).apply_image(pixel)
        for aug in (T.RandomBrightness, T.RandomContrast)
    ]
    assert half[0][0, :, 0].tolist() == [50, 100]
    assert half[1][0, :, 0].tolist() == [125, 175]  # mean 150
    red = np.array([[[200, 0, 0]]], np.uint8)
    grey = T.RandomSaturation(0, 0).get_transform(red).apply_image(red)
    assert grey.tolist() == [[[59, 59, 59]]]  # 0.299 * 200
    np.testing.assert_array_equal(T.RandomLighting(0).get_transform(red).apply_image(red), red)


def test_random_apply():
    for aug, expected in [
        (T.RandomApply(T.Resize(8), 1), (8, 8, 3)),
        (T.RandomApply(T.Resize(8), 0), IMAGE.shape),
    ]:
        aug_input = T.AugInput(IMAGE)
        aug(aug_input)
        assert aug_input.image.shape == expected
    with pytest.raises(ValueError, match="probability"):
        T.RandomApply(T.NoOpTransform(), 2)
