"""panomask.data.datasets.coco_images: the images of a COCO file."""

import pytest

from panomask.data.datasets.coco_images import read_images, sort_by_id
from panomask.errors import InputError


def image(**fields):
    return {"id": 1, "file_name": "a.jpg", "height": 10, "width": 20, **fields}


def test_records(tmp_path):
    images = [image(id=9, file_name="sub/a.jpg"), image(id=3, file_name="/abs/b.jpg", height=5.0)]
    records = sort_by_id("f.json", read_images("f.json", images, tmp_path))
    assert records == [
        {"file_name": "/abs/b.jpg", "height": 5, "width": 20, "image_id": 3, "annotations": []},
        {"file_name": f"{tmp_path}/sub/a.jpg", "height": 10, "width": 20, "image_id": 9, "annotations": []},
    ]
    assert isinstance(records[0]["height"], int)
    assert read_images("f.json", [], tmp_path) == {}


@pytest.mark.parametrize(
    "images, message",
    [
        ([5], "image number 0 .*is 5"),
        ([image(id=None)], '"id" is None'),
        ([image(id=[1])], r'"id" is \[1\]'),
        ([image(file_name=None)], '"file_name" of image 1 is None'),
        ([image(file_name="")], "a file name is needed"),
        ([image(height=None)], r"\"height\" and \"width\" of image 1 \('a.jpg'\) are None and 20"),
        ([image(width=0)], "are 10 and 0"),
        ([image(width="20")], "are 10 and '20'"),
        ([image(width=20.5)], "20.5"),
        ([image(width=float("nan"))], "nan"),
        ([image(width=float("inf"))], "inf"),
        ([image(), image(file_name="b.jpg")], "number 1 .*id 1 of 'b.jpg' is that of '.*a.jpg' too"),
    ],
)
def test_bad_images(tmp_path, images, message):
    with pytest.raises(InputError, match=message) as e:
        read_images("f.json", images, tmp_path)
    assert str(e.value).startswith("f.json: image number ")
    assert "\n" not in str(e.value)


def test_ids_of_two_kinds(tmp_path):
    with pytest.raises(InputError, match=r"f\.json: some image ids are numbers and some are texts"):
        sort_by_id("f.json", read_images("f.json", [image(), image(id="2")], tmp_path))


def test_missing_image_folder(tmp_path):
    with pytest.raises(InputError, match=r"the image folder .*none does not exist.*'a\.jpg'"):
        read_images(tmp_path / "f.json", [image()], tmp_path / "none")


@pytest.mark.parametrize(
    "place, given", [("images", "."), (".", "images"), ("data", "wrong"), ("data/images", "wrong")]
)
def test_images_in_another_place_are_found(tmp_path, place, given):
    """Exports put the images beside the JSON file or in images/; the message says which."""
    for folder in (place, given):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "a.jpg").touch()
    with pytest.raises(InputError, match="is not in the image folder") as e:
        read_images(tmp_path / "data" / "f.json", [image()], tmp_path / given)
    assert f"but in {tmp_path / place};" in str(e.value)
    assert read_images(tmp_path / "data" / "f.json", [image()], tmp_path / place)


def test_a_name_that_the_file_system_refuses(tmp_path):
    (record,) = read_images("f.json", [image(file_name="a" * 300)], tmp_path).values()
    assert record["file_name"] == f"{tmp_path}/{'a' * 300}"
