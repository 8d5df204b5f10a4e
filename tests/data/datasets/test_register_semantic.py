import numpy as np
import pytest
from PIL import Image

from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.register_semantic import load_semantic, register_semantic
from panomask.errors import InputError


@pytest.fixture
def folders(tmp_path):
    """Images of several kinds, one in a subfolder, and their label files."""
    for name in ("images/a.jpg", "images/b.PNG", "images/sub/a.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
        label = (tmp_path / "labels" / path.relative_to(tmp_path / "images")).with_suffix(".png")
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(label)
    (tmp_path / "images" / "notes.txt").write_text("")
    return tmp_path / "labels", tmp_path / "images"


def test_images_and_labels_are_paired_whatever_the_ending(folders):
    labels, images = folders
    records = load_semantic(labels, images)
    assert [record["file_name"] for record in records] == [
        str(images / name) for name in ("a.jpg", "b.PNG", "sub/a.tif")
    ]
    assert [record["sem_seg_file_name"] for record in records] == [
        str(labels / name) for name in ("a.png", "b.png", "sub/a.png")
    ]


def test_registered_set(folders):
    labels, images = folders
    register_semantic("semantic_a", labels, images, ["road", "sky"], ignore_label=7)
    try:
        metadata = MetadataCatalog.get("semantic_a")
        assert metadata.stuff_classes == ["road", "sky"]
        assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 7)
        assert len(DatasetCatalog.get("semantic_a")) == 3
    finally:
        DatasetCatalog.remove("semantic_a")
        MetadataCatalog.remove("semantic_a")


def test_a_file_without_partner(folders):
    labels, images = folders
    (labels / "b.png").unlink()
    with pytest.raises(InputError, match=r"images: 1 of 3 files have no partner .*such as b\.PNG; add"):
        load_semantic(labels, images)
    assert len(load_semantic(labels, images, on_bad="drop")) == 2
    for path in labels.rglob("*.png"):
        path.rename(path.with_stem("x" + path.stem))
    with pytest.raises(InputError, match="2 of 2 files have no partner"):
        load_semantic(labels, images, on_bad="drop")


def test_wrong_folders(folders, tmp_path):
    labels, images = folders
    with pytest.raises(InputError, match=r"nowhere: the folder of label files .* does not exist"):
        load_semantic(tmp_path / "nowhere", images)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no images"):
        load_semantic(labels, tmp_path / "empty")
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(images / "a.png")
    with pytest.raises(InputError, match="have one name but for the ending"):
        load_semantic(labels, images)
