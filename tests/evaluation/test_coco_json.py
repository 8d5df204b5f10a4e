import json
from collections.abc import Iterator

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import convert_to_coco_dict, convert_to_coco_json, load_ground_truth
from panomask.json_file import write_json
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BoxMode

NAME = "test_coco_json_set"


@pytest.fixture
def data_set() -> Iterator[list[dict]]:
    dicts: list[dict] = [{"file_name": "a.jpg", "height": 10, "width": 12, "image_id": 44, "annotations": []}]
    DatasetCatalog.register(NAME, lambda: dicts)
    MetadataCatalog.get(NAME).set(thing_classes=["x", "y"], thing_dataset_id_to_contiguous_id={7: 0, 3: 1})
    yield dicts
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def _annotation(**more) -> dict:
    return {"bbox": [2, 3, 8, 7], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, **more}


def test_images_categories_and_boxes(data_set):
    data_set[0]["annotations"] = [_annotation(), _annotation(category_id=0, iscrowd=1)]
    coco = convert_to_coco_dict(NAME)
    assert coco["images"] == [{"id": 44, "file_name": "a.jpg", "height": 10, "width": 12}]
    assert coco["categories"] == [{"id": 7, "name": "x"}, {"id": 3, "name": "y"}]
    first, second = coco["annotations"]
    assert first == {
        "id": 1,
        "image_id": 44,
        "category_id": 3,
        "bbox": [2, 3, 6, 4],
        "iscrowd": 0,
        "area": 24,
    }
    assert (second["id"], second["category_id"], second["iscrowd"]) == (2, 7, 1)
    assert load_ground_truth(coco).getCatIds() == [7, 3]


def test_masks_of_every_kind_survive_json(data_set):
    mask = np.zeros((10, 12), np.uint8)
    mask[3:5, 2:8] = 1
    rle = mask_util.encode(np.asfortranarray(mask))  # counts are bytes
    polygon = np.array([2.0, 3, 8, 3, 8, 5, 2, 5])
    data_set[0]["annotations"] = [_annotation(segmentation=each) for each in ([polygon], rle, mask)]
    coco = json.loads(json.dumps(convert_to_coco_dict(NAME)))
    assert coco["annotations"][0]["segmentation"] == [polygon.tolist()]
    assert [annotation["area"] for annotation in coco["annotations"]] == [12, 12, 12]
    for annotation in load_ground_truth(coco).anns.values():
        np.testing.assert_array_equal(mask_util.decode(annotation["segmentation"]), mask)


def test_area_is_kept_where_the_annotation_has_it(data_set):
    data_set[0]["annotations"] = [_annotation(area=5.5)]
    assert convert_to_coco_dict(NAME)["annotations"][0]["area"] == 5.5


def test_keypoints_go_back_to_pixel_indices(data_set):
    data_set[0]["annotations"] = [_annotation(keypoints=[3.5, 4.5, 2, 0.5, 0.5, 0])]
    (annotation,) = convert_to_coco_dict(NAME)["annotations"]
    assert annotation["keypoints"] == [3, 4, 2, 0, 0, 0]
    assert annotation["num_keypoints"] == 1


def test_classes_without_dataset_ids_and_images_without_ids_count_from_zero():
    name = f"{NAME}_plain"
    DatasetCatalog.register(name, lambda: [{"file_name": "a.jpg", "height": 5, "width": 5}])
    MetadataCatalog.get(name).set(thing_classes=["x"])
    coco = convert_to_coco_dict(name)
    assert (coco["categories"], coco["images"][0]["id"]) == ([{"id": 0, "name": "x"}], 0)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_what_evaluation_cannot_do_without_is_named(data_set):
    data_set[0]["annotations"] = [_annotation(category_id=2)]
    with pytest.raises(InputError, match=r"entry 0 \(a.jpg\): category_id 2; the metadata has 0 to 1"):
        convert_to_coco_dict(NAME)
    del data_set[0]["height"]
    with pytest.raises(InputError, match=r"entry 0 \(a.jpg\): lacks 'height'"):
        convert_to_coco_dict(NAME)
    with pytest.raises(InputError, match="no class names"):
        convert_to_coco_dict("test_coco_json_unnamed")
    MetadataCatalog.remove("test_coco_json_unnamed")


def test_an_image_id_that_comes_twice_is_named(data_set):
    data_set.append(dict(data_set[0]))
    with pytest.raises(InputError, match=r"entry 1 .*image_id 44 is that of an earlier entry"):
        convert_to_coco_dict(NAME)


def test_the_file_is_kept_or_written_anew(data_set, tmp_path):
    path = tmp_path / "deep" / "set.json"
    convert_to_coco_json(NAME, path)
    data_set[0]["annotations"] = [_annotation()]
    convert_to_coco_json(NAME, path)
    assert json.loads(path.read_text())["annotations"] == []
    convert_to_coco_json(NAME, path, allow_cached=False)
    assert len(json.loads(path.read_text())["annotations"]) == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [2, object()])
    assert json.loads(path.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_objects_of_a_panoptic_data_set_have_the_masks_of_its_png(tmp_path):
    """With and without annotations, of which the latter names things and stuff in one list."""
    name = f"{NAME}_panoptic"
    write_segment_ids(tmp_path / "a.png", np.array([[5, 5, 0], [5, 6, 6]]))
    record = {
        "file_name": "a.jpg",
        "image_id": 3,
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": [
            {"id": 5, "category_id": 0, "isthing": True, "iscrowd": 0},
            {"id": 6, "category_id": 1, "isthing": False, "iscrowd": 0},
        ],
    }
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(
        thing_classes=["x", "sky"], thing_dataset_id_to_contiguous_id={8: 0}, stuff_classes=["x", "sky"]
    )
    coco = convert_to_coco_dict(name)
    (found,) = coco["annotations"]
    assert (found["category_id"], found["bbox"], found["area"]) == (8, [0, 0, 2, 2], 3)
    assert coco["categories"] == [{"id": 8, "name": "x"}]
    assert (coco["images"][0]["height"], coco["images"][0]["width"]) == (2, 3)
    record["annotations"] = [{"segment_id": 5, "category_id": 0, "iscrowd": 0}]
    assert convert_to_coco_dict(name) == coco
    record["segments_info"] = record["segments_info"][:1]
    with pytest.raises(InputError, match=r"a\.png: its pixels have segment id 6"):
        convert_to_coco_dict(name)
    MetadataCatalog.get(name).on_bad_annotation = "drop"
    assert convert_to_coco_dict(name) == coco
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
