import numpy as np
import pytest

from panomask.data import transforms as T


class _MarkCorner(T.Augmentation):
    """Looks at two fields by the names of its arguments."""

    def get_transform(self, image, sem_seg):
        assert sem_seg.shape == image.shape[:2]
        return T.HFlipTransform(image.shape[1])


def test_arguments_of_get_transform_name_the_inputs():
    aug_input = T.AugInput(np.zeros((4, 6, 3), np.uint8), sem_seg=np.arange(24).reshape(4, 6))
    transform = _MarkCorner()(aug_input)
    assert isinstance(transform, T.HFlipTransform)
    assert aug_input.sem_seg[0].tolist() == [5, 4, 3, 2, 1, 0]


def test_a_single_argument_is_the_image_whatever_its_name():
    class Old(T.TransformGen):
        def get_transform(self, img):
            return T.HFlipTransform(img.shape[1])

    transform = Old()(T.AugInput(np.zeros((4, 6, 3), np.uint8)))
    assert transform.width == 6


def test_every_get_transform_is_asked_for_what_it_names():
    """What a signature says is remembered: by function, not by class or object."""

    class Own(_MarkCorner):
        def get_transform(self, image):
            return T.NoOpTransform()

    class Static(T.Augmentation):
        @staticmethod
        def get_transform(sem_seg, image):
            return T.HFlipTransform(sem_seg.shape[1] + image.shape[0])

    image, sem_seg = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6))
    for _ in range(2):
        aug_input = T.AugInput(image, sem_seg=sem_seg)
        assert isinstance(_MarkCorner()(aug_input), T.HFlipTransform)
        assert isinstance(Own()(aug_input), T.NoOpTransform)
        assert Static()(aug_input).width == 10
    replaced = Own()
    replaced.get_transform = lambda image, sem_seg: T.HFlipTransform(sem_seg.shape[0])
    assert replaced(T.AugInput(image, sem_seg=sem_seg)).width == 4


def test_get_transform_may_be_a_callable_that_cannot_be_hashed():
    class Call(list):
        def __call__(self, image, sem_seg):
            return T.HFlipTransform(sem_seg.shape[1])

    own = T.Augmentation()
    own.get_transform = Call()
    assert own(T.AugInput(np.zeros((4, 6, 3), np.uint8), sem_seg=np.zeros((4, 6)))).width == 6


def test_missing_input_names_augmentation_and_field():
    class NeedsDepth(T.Augmentation):
        input_args = ("image", "depth")

        def get_transform(self, image, depth):
            return T.NoOpTransform()

    with pytest.raises(AttributeError, match=r"NeedsDepth.*'depth'"):
        NeedsDepth()(T.AugInput(np.zeros((4, 6, 3), np.uint8)))


def test_list_applies_in_order_and_takes_transforms():
    aug_input = T.AugInput(np.zeros((10, 20, 3), np.uint8), boxes=np.array([[0.0, 0.0, 5.0, 5.0]]))
    applied = aug_input.apply_augmentations([T.Resize((20, 40)), T.HFlipTransform(40)])
    assert isinstance(applied, T.TransformList)
    assert aug_input.image.shape == (20, 40, 3)
    np.testing.assert_allclose(aug_input.boxes, [[30, 0, 40, 10]])
    np.testing.assert_allclose(applied.apply_box(np.array([[0.0, 0.0, 5.0, 5.0]])), aug_input.boxes)


def test_apply_augmentations_returns_the_kind_it_was_given():
    image = np.zeros((10, 20, 3), np.uint8)
    resized, transforms = T.apply_augmentations([T.Resize(5)], image)
    assert resized.shape == (5, 5, 3)
    assert len(transforms) == 1
    aug_input = T.StandardAugInput(image)
    same, _ = T.apply_transform_gens([T.Resize(5)], aug_input)
    assert same is aug_input


def test_representation_shows_what_differs_from_the_default():
    assert repr(T.ResizeShortestEdge((640, 800), max_size=1333, sample_style="choice")) == (
        "ResizeShortestEdge(short_edge_length=(640, 800), max_size=1333, sample_style='choice')"
    )
    assert repr(T.AugmentationList([T.RandomFlip(prob=0.3)])) == "AugmentationList[RandomFlip(prob=0.3)]"


@pytest.mark.parametrize("image", [[[1]], np.zeros((2, 2), np.int64), np.zeros(4, np.uint8)])
def test_bad_images_are_refused(image):
    with pytest.raises(TypeError, match="image"):
        T.AugInput(image)


def test_wrong_kinds_are_refused():
    class Forgot(T.Augmentation):
        def get_transform(self, image):
            return None

    with pytest.raises(TypeError, match="must return a Transform"):
        Forgot()(T.AugInput(np.zeros((2, 2), np.uint8)))
    with pytest.raises(TypeError, match="neither"):
        T.AugmentationList([3])
