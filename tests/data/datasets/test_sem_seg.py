"""panomask.data.datasets.sem_seg: images and label files by name."""

import logging

import pytest

from panomask.data.datasets.coco import load_sem_seg
from panomask.errors import InputError


@pytest.fixture
def folders(tmp_path):
    def make(images: str, labels: str):
        for folder, names in (("images", images), ("labels", labels)):
            (tmp_path / folder).mkdir()
            for name in names.split():
                (tmp_path / folder / name).touch()
        return str(tmp_path / "labels"), str(tmp_path / "images")

    return make


def test_pairs_are_sorted(folders, tmp_path):
    assert load_sem_seg(*folders("b.jpg a.jpg", "a.png b.png readme.txt")) == [
        {
            "file_name": str(tmp_path / "images" / f"{name}.jpg"),
            "sem_seg_file_name": str(tmp_path / "labels" / f"{name}.png"),
        }
        for name in "ab"
    ]


def test_extensions(folders):
    (record,) = load_sem_seg(*folders("a.png", "a.tif"), gt_ext="tif", image_ext="png")
    assert record["sem_seg_file_name"].endswith("labels/a.tif")


def test_what_both_have(folders, caplog):
    with caplog.at_level(logging.WARNING):
        (record,) = load_sem_seg(*folders("a.jpg b.jpg c.jpg", "b.png"))
    assert record["file_name"].endswith("b.jpg")
    (warning,) = caplog.messages
    assert "Without label: a, c." in warning


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ("a.jpg", "b.png", r"none of its \*\.png files has the name of an image .*images: a; labels: b"),
        ("a.JPG", "a.png", r"no file ends in '\.jpg'.*a\.JPG.*image_ext"),
        ("a.jpg", "", r"no file ends in '\.png'.*0 files"),
    ],
)
def test_nothing_to_pair(folders, images, labels, words):
    with pytest.raises(InputError, match=words):
        load_sem_seg(*folders(images, labels))


def test_missing_folder(folders, tmp_path):
    labels, _ = folders("a.jpg", "a.png")
    with pytest.raises(InputError, match="folder of images does not exist"):
        load_sem_seg(labels, tmp_path / "nowhere")
