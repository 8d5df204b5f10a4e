import json
from collections.abc import Callable, Iterator

import pytest

from panomask.data import MetadataCatalog
from panomask.data.keypoint_layout import common_keypoint_layout, keypoint_layout_of
from panomask.errors import InputError
from panomask.structures.keypoints import COCO_PERSON_KEYPOINT_NAMES, COCO_PERSON_OKS_SIGMAS

NAMES = ["nose", "left_eye", "right_eye"]


@pytest.fixture
def known() -> Iterator[Callable[..., str]]:
    """A data set of which the given metadata are known."""
    made: list[str] = []

    def make(**metadata) -> str:
        made.append(f"layout_{len(made)}")
        MetadataCatalog.get(made[-1]).set(**metadata)
        return made[-1]

    yield make
    for name in made:
        MetadataCatalog.remove(name)


@pytest.fixture
def from_file(known, tmp_path) -> Callable[..., str]:
    """A data set with an annotation file of these categories."""

    def make(*categories: dict, **metadata) -> str:
        path = tmp_path / "annotations.json"
        content = [{"id": i, "name": f"c{i}", **c} for i, c in enumerate(categories)]
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": content}))
        return known(json_file=str(path), **metadata)

    return make


def test_names_alone_say_pairs(known):
    layout = keypoint_layout_of(known(keypoint_names=NAMES))
    assert layout.flip_pairs == (("left_eye", "right_eye"),)
    assert layout.hflip_indices() == [0, 2, 1]
    assert layout.oks_sigmas is None


def test_metadata_go_before_names(known):
    pairs, sigmas = [("nose", "left_eye")], [0.1, 0.2, 0.3]
    layout = keypoint_layout_of(
        known(keypoint_names=tuple(NAMES), keypoint_flip_map=pairs, keypoint_oks_sigmas=sigmas)
    )
    assert layout.hflip_indices() == [1, 0, 2]
    assert layout.oks_sigmas == (0.1, 0.2, 0.3)
    assert keypoint_layout_of(known(keypoint_names=NAMES, keypoint_flip_map=[])).hflip_indices() == [0, 1, 2]


def test_coco_s_keypoints_have_coco_s_sigmas(known):
    assert keypoint_layout_of(known(keypoint_names=list(COCO_PERSON_KEYPOINT_NAMES))).oks_sigmas == (
        COCO_PERSON_OKS_SIGMAS
    )


def test_the_annotation_file_is_asked_before_it_is_loaded(from_file):
    name = from_file({}, {"keypoints": NAMES, "sigmas": [0.1, 0.2, 0.2], "skeleton": [[1, 2]]})
    layout = keypoint_layout_of(name)
    assert layout.names == tuple(NAMES)
    assert layout.flip_pairs == (("left_eye", "right_eye"),)
    assert layout.oks_sigmas == (0.1, 0.2, 0.2)
    assert MetadataCatalog.get(name).keypoint_connection_rules[0][:2] == ("nose", "left_eye")
    by_hand = from_file({"keypoints": NAMES}, keypoint_flip_map=[], keypoint_oks_sigmas=[1.0, 1.0, 1.0])
    assert keypoint_layout_of(by_hand).flip_pairs == ()
    assert keypoint_layout_of(by_hand).oks_sigmas == (1, 1, 1)


def test_data_without_keypoints(known, from_file):
    with pytest.raises(InputError, match=r"declares no keypoints \(its metadata: no keypoint_names\)"):
        keypoint_layout_of(known())
    with pytest.raises(
        InputError, match=r"annotations\.json: no category has \"keypoints\".*MODEL\.KEYPOINT_ON False"
    ):
        keypoint_layout_of(from_file({}))
    with pytest.raises(InputError, match=r"category 'c0': .*names that all differ"):
        keypoint_layout_of(from_file({"keypoints": ["a", "a"]}))
    nowhere = known(json_file="nowhere.json", thing_classes=["a"])  # a built-in set, not there yet
    with pytest.raises(InputError, match="declares no keypoints"):
        keypoint_layout_of(nowhere)
    with pytest.raises(InputError, match="c0, c1 declare different keypoints"):
        keypoint_layout_of(from_file({"keypoints": NAMES}, {"keypoints": NAMES[:2]}))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"keypoint_flip_map": [("left_eye", "right_ey")]},
            "no keypoint 'right_ey'; known: right_eye, left_eye",
        ),
        ({"keypoint_flip_map": [("nose", "left_eye"), ("nose", "right_eye")]}, "'nose' is in another pair"),
        ({"keypoint_flip_map": [("nose", "nose")]}, "'nose' is in another pair"),
        ({"keypoint_oks_sigmas": [0.1]}, r"has 3 keypoints .* sigmas \(keypoint_oks_sigmas\) are \[0\.1\]"),
        ({"keypoint_oks_sigmas": [0.1, 0, 0.1]}, "a number above 0 for each"),
        ({"keypoint_oks_sigmas": [0.1, "x", 0.1]}, "a number above 0 for each"),
    ],
)
def test_what_does_not_fit(known, metadata, message):
    with pytest.raises(InputError, match=message):
        keypoint_layout_of(known(keypoint_names=NAMES, **metadata))


def test_data_sets_that_are_used_together_must_agree(known):
    first, same = known(keypoint_names=NAMES), known(keypoint_names=tuple(NAMES))
    turned = known(keypoint_names=NAMES, keypoint_flip_map=[("right_eye", "left_eye")])
    assert common_keypoint_layout([first, same, turned]).names == tuple(NAMES)
    with pytest.raises(InputError, match=r"differ in keypoint_names: 3 .* against 2"):
        common_keypoint_layout([first, known(keypoint_names=NAMES[:2])])
    with pytest.raises(InputError, match="differ in keypoint_flip_map"):
        common_keypoint_layout([first, known(keypoint_names=NAMES, keypoint_flip_map=())])
