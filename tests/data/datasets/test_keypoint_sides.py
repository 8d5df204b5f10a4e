import pytest

from panomask.data.datasets.keypoint_sides import doubtful_pairs, find_flip_pairs, one_sided_names


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
        ("Left Eye", "Right Eye"),
        ("leftEye", "rightEye"),
        ("lefteye", "righteye"),
        ("EYE-LEFT", "EYE-RIGHT"),
        ("l_eye", "r_eye"),
        ("L_F_Elbow", "R_F_Elbow"),
        ("eye.L", "eye.R"),
        ("LEye", "REye"),
        ("lEye", "rEye"),
        ("left", "right"),
        ("hand (left) 3", "hand (right) 3"),
        ("left目", "right目"),
        ("left_leg_right_corner", "right_leg_left_corner"),
    ],
)
def test_pairs_by_name(left, right):
    assert find_flip_pairs(["nose", right, left]) == [(left, right)]


@pytest.mark.parametrize(
    "names",
    [
        ["left_eye", "nose"],  # no partner
        ["l", "r"],  # two letters of an alphabet
        ["upright", "upleft_x", "bright_spot"],
        ["left目", "right耳"],
        ["lip", "rip", "head_1", "head_2"],
        ["left eye", "left_eye", "right_eye"],  # which of the two?
        [],
    ],
)
def test_no_pairs(names):
    assert find_flip_pairs(names) == []


def test_every_left_name_finds_its_own():
    names = ["left_eye", "right_eye", "nose", "left_ear", "right_ear"]
    pairs = find_flip_pairs(names)
    assert pairs == [("left_eye", "right_eye"), ("left_ear", "right_ear")]
    assert one_sided_names(names, pairs) == []
    assert one_sided_names([*names, "rightFoot", "l_hand", "brightness"], pairs) == ["rightFoot"]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("lknee", "rknee"),
        ("lank", "rank"),
        ("lf_paw", "rf_paw"),
        ("TL", "TR"),
        ("eyeleft", "eyeright"),
        ("lip", "rip"),
    ],
)
def test_doubtful_pairs_are_named_and_not_swapped(left, right):
    names = ["nose", right, left, "left_ear", "right_ear"]
    pairs = find_flip_pairs(names)
    assert pairs == [("left_ear", "right_ear")]
    assert doubtful_pairs(names, pairs) == [(left, right)]
    assert doubtful_pairs(names, [*pairs, (left, right)]) == []
