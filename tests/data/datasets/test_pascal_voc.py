"""The VOC reader: boxes by hand, and one line for what is wrong."""

import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances, register_pascal_voc
from panomask.errors import InputError
from panomask.structures import BoxMode

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
</object>"""


def write_voc(root, images, split="trainval"):
    """`images`: name -> [(class, box as in the file, difficult), ...] in images of 20 x 10 pixels."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(images) + "\n")
    for image, objects in images.items():
        size = "<size><width>20</width><height>10</height><depth>3</depth></size>"
        body = "".join(OBJECT.format(name=n, box=box, difficult=d) for n, box, d in objects)
        (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{size}{body}</annotation>")


def test_boxes_count_from_zero(tmp_path):
    """xmin=1, xmax=20 of an image 20 pixels wide is all of it: 0 to 20 in continuous coordinates."""
    whole, other = [1, 1, 20, 10], ["3.5", 2, 7, 4]
    write_voc(tmp_path, {"000002": [("dog", whole, 0), ("cat", other, 1)], "000001": []})
    first, second = load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)
    assert first == {
        "file_name": str(tmp_path / "JPEGImages" / "000002.jpg"),
        "image_id": "000002",
        "height": 10,
        "width": 20,
        "annotations": [
            {"category_id": 11, "bbox": [0.0, 0.0, 20.0, 10.0], "bbox_mode": BoxMode.XYXY_ABS},
            {"category_id": 7, "bbox": [2.5, 1.0, 7.0, 4.0], "bbox_mode": BoxMode.XYXY_ABS},
        ],
    }
    assert (second["image_id"], second["annotations"]) == ("000001", [])


def test_a_set_of_ones_own_classes(tmp_path):
    write_voc(tmp_path, {"x": [("nut", [1, 1, 2, 2], 0)]}, split="all")
    register_pascal_voc("my_voc", str(tmp_path), "all", 2012, ["fruit", "nut"])
    try:
        (record,) = DatasetCatalog.get("my_voc")
        metadata = MetadataCatalog.get("my_voc")
    finally:
        DatasetCatalog.remove("my_voc")
        MetadataCatalog.remove("my_voc")
    assert record["annotations"][0]["category_id"] == 1
    assert (metadata.thing_classes, metadata.year, metadata.split) == (["fruit", "nut"], 2012, "all")
    assert metadata.evaluator_type == "pascal_voc"


@pytest.mark.parametrize(
    ("name", "box", "message"),
    [
        ("dgo", [1, 1, 2, 2], r"x\.xml: object number 0 .*class 'dgo' is unknown; did you mean dog\?"),
        ("dog", [1, 1, "", 2], r"x\.xml: object number 0 .*<bndbox><xmax> is ''"),
        ("dog", [1, 1, "nan", 2], r"<bndbox><xmax> is 'nan'"),
        ("dog", [5, 1, 2, 2], r"xmin 5, ymin 1, xmax 2, ymax 2"),
    ],
)
def test_a_bad_object_is_named(tmp_path, name, box, message):
    write_voc(tmp_path, {"x": [(name, box, 0)]})
    with pytest.raises(InputError, match=message):
        load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)


def test_the_list_of_images_may_start_with_a_mark_but_names_each_once(tmp_path):
    """A byte order mark is what editors on Windows put there."""
    write_voc(tmp_path, {"x": [], "y": []})
    listed = tmp_path / "ImageSets/Main/trainval.txt"
    listed.write_bytes(b"\xef\xbb\xbfx 1\r\ny -1\r\n")
    assert [r["image_id"] for r in load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)] == ["x", "y"]
    listed.write_text("x\ny\nx\n")
    with pytest.raises(InputError, match=r"trainval\.txt: lists 'x' more than once"):
        load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)
    listed.write_bytes(b"x\0\n")
    with pytest.raises(InputError, match=r"trainval\.txt: is no text"):
        load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)


def test_a_missing_file_is_named(tmp_path):
    write_voc(tmp_path, {"x": []})
    with pytest.raises(InputError, match=r"ImageSets/Main/none\.txt: file does not exist"):
        load_voc_instances(str(tmp_path), "none", CLASS_NAMES)
    (tmp_path / "Annotations/x.xml").write_text("<annotation><size/></annotation>")
    with pytest.raises(InputError, match=r"x\.xml: <size><height> is None"):
        load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)
    (tmp_path / "Annotations/x.xml").unlink()
    with pytest.raises(InputError, match=r"Annotations/x\.xml: file does not exist"):
        load_voc_instances(str(tmp_path), "trainval", CLASS_NAMES)
