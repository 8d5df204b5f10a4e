"""The embedded data set: the same bytes always, annotations that say what is drawn, whole or not at all."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_coding
import pytest
from pycocotools.coco import COCO

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets import shapes_writing
from panomask.data.datasets.shapes import write_shapes
from panomask.data.datasets.shapes_annotation import (
    encode_uncompressed,
    instance_records,
    keypoint_records,
    trace_outlines,
)
from panomask.data.datasets.shapes_drawing import KEYPOINT_NAMES, THING_CLASSES
from panomask.data.datasets.shapes_scene import MIN_AREA, draw_scene
from panomask.errors import InputError

SMALL = {"train": 4, "val": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "v1"
    write_shapes(folder, num_images=SMALL)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list:
    return [draw_scene(0, 0, index) for index in range(60)]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _read(folder: Path, name: str) -> dict:
    return json.loads((folder / "annotations" / name).read_text())


def _decode(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, list):
        return mask_coding.decode(mask_coding.merge(mask_coding.frPyObjects(segmentation, height, width)))
    if isinstance(segmentation["counts"], list):
        return mask_coding.decode(mask_coding.frPyObjects(segmentation, height, width))
    return mask_coding.decode(segmentation)


def test_two_runs_write_the_same_bytes(small: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", num_images=SMALL)
    assert _contents(tmp_path / "again") == _contents(small)


def test_a_picture_does_not_depend_on_how_many_there_are_but_on_the_seed(small: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "one", num_images={"val": 1})
    write_shapes(tmp_path / "other", seed=1, num_images={"val": 1})
    name = "val/100001.png"
    assert (tmp_path / "one" / name).read_bytes() == (small / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (small / name).read_bytes()


def test_scenes_are_those_of_this_version(scenes: list) -> None:
    """If this fails, the generator has changed: raise shapes_writing.VERSION and put the new digest here."""
    digest = hashlib.sha256()
    for scene in scenes[:5]:
        digest.update(scene.image.tobytes() + scene.stuff.tobytes())
        for thing in scene.things:
            digest.update(np.packbits(thing.mask).tobytes())
    assert (shapes_writing.VERSION, digest.hexdigest()[:16]) == (2, "6009fcb29900dbfa")


def test_the_set_is_as_varied_as_promised(scenes: list) -> None:
    things = [thing for scene in scenes for thing in scene.things]
    assert {thing.class_idx for thing in things} == set(range(len(THING_CLASSES)))
    assert {value for scene in scenes for value in np.unique(scene.stuff)} == {0, 1, 2}
    assert {scene.stuff.shape[0] < scene.stuff.shape[1] for scene in scenes} == {True, False}
    assert any(not scene.things for scene in scenes)
    assert all(thing.mask.sum() >= MIN_AREA for thing in things)
    records = [r for i, scene in enumerate(scenes) for r in instance_records(scene, i)]
    crowds = [r["segmentation"] for r in records if r["iscrowd"]]
    assert crowds
    assert all(isinstance(s["counts"], list) for s in crowds)
    single = [r["segmentation"] for r in records if not r["iscrowd"]]
    assert any(isinstance(s, dict) and isinstance(s["counts"], str) for s in single)
    assert any(isinstance(s, list) and len(s) > 1 for s in single)


def test_segmentations_give_the_visible_masks_back(scenes: list) -> None:
    for scene in scenes:
        height, width = scene.stuff.shape
        for thing, record in zip(scene.things, instance_records(scene, 1), strict=True):
            mask = _decode(record["segmentation"], height, width).astype(bool)
            assert np.array_equal(mask, thing.mask)
            rows, cols = np.nonzero(mask)
            box = [cols.min(), rows.min(), cols.max() + 1 - cols.min(), rows.max() + 1 - rows.min()]
            assert record["bbox"] == box
            assert record["area"] == mask.sum()


def test_things_do_not_share_pixels(scenes: list) -> None:
    for scene in scenes:
        assert sum((thing.mask.astype(int) for thing in scene.things), np.zeros(())).max() <= 1


@pytest.mark.parametrize(
    "rows, outlines, has_holes",
    [
        ("..", [], False),
        ("#", ["0.5,0 1,0.5 0.5,1 0,0.5"], False),
        ("##", ["0.5,0 1.5,0 2,0.5 1.5,1 0.5,1 0,0.5"], False),
        ("#. .#", ["0.5,0 2,1.5 1.5,2 0,0.5"], False),
        ("#.#", ["0.5,0 1,0.5 0.5,1 0,0.5", "2.5,0 3,0.5 2.5,1 2,0.5"], False),
        ("### #.# ###", ["0.5,0 2.5,0 3,0.5 3,2.5 2.5,3 0.5,3 0,2.5 0,0.5"], True),
    ],
)
def test_outlines_of_tiny_masks(rows: str, outlines: list[str], has_holes: bool) -> None:
    found, holes = trace_outlines(np.array([[c == "#" for c in row] for row in rows.split()]))
    corners = [{f"{x:g},{y:g}" for x, y in outline.tolist()} for outline in found]
    assert corners == [set(outline.split()) for outline in outlines]
    assert holes == has_holes


def test_uncompressed_runs_go_down_the_columns() -> None:
    assert encode_uncompressed(np.array([[1, 0], [1, 0]], dtype=bool)) == {
        "counts": [0, 2, 2],
        "size": [2, 2],
    }
    assert encode_uncompressed(np.array([[0, 1], [0, 1]], dtype=bool)) == {"counts": [2, 2], "size": [2, 2]}


def test_keypoints_lie_on_their_figures(scenes: list) -> None:
    visibilities = []
    for scene in scenes:
        height, width = scene.stuff.shape
        figures = [t for t in scene.things if THING_CLASSES[t.class_idx] == "figure"]
        records = keypoint_records(scene, instance_records(scene, 1))
        assert len(records) == len(figures)
        for figure, record in zip(figures, records, strict=True):
            triples = np.array(record["keypoints"]).reshape(-1, 3)
            assert len(triples) == len(KEYPOINT_NAMES)
            assert record["num_keypoints"] == (triples[:, 2] > 0).sum()
            if record["iscrowd"]:
                assert not triples.any()
                continue
            visibilities += triples[:, 2].tolist()
            assert not triples[triples[:, 2] == 0].any()
            for x, y, visibility in triples[triples[:, 2] > 0]:
                assert 0 <= x <= width - 0.5
                assert 0 <= y <= height - 0.5
                near = figure.mask[max(0, round(y) - 1) : round(y) + 2, max(0, round(x) - 1) : round(x) + 2]
                assert visibility == 1 or near.any()
    assert set(visibilities) == {0, 1, 2}


def test_left_and_right_follow_from_the_view(scenes: list) -> None:
    """From the front, the left hand is on the right of the picture; both views occur."""
    orders = set()
    for scene in scenes:
        for thing in scene.things:
            if thing.keypoints is not None and (thing.keypoints[:, 2] > 0).all():
                left, right = (
                    thing.keypoints[KEYPOINT_NAMES.index(f"{side}_hip"), 0] for side in ("left", "right")
                )
                orders.add(left > right)
    assert orders == {True, False}


@pytest.mark.parametrize("split", SMALL)
def test_panoptic_picture_json_and_instances_agree(small: Path, split: str) -> None:
    panoptic, instances = _read(small, f"panoptic_{split}.json"), _read(small, f"instances_{split}.json")
    is_thing = {c["id"]: c["isthing"] for c in panoptic["categories"]}
    assert list(is_thing.items()) == [(id_, int(id_ <= 6)) for id_ in range(1, 10)]
    assert len(panoptic["annotations"]) == len(panoptic["images"]) == SMALL[split]
    for annotation, image in zip(panoptic["annotations"], panoptic["images"], strict=True):
        picture = cv2.imread(str(small / f"panoptic_{split}" / annotation["file_name"]))[..., ::-1].astype(
            int
        )
        ids = picture[..., 0] + 256 * picture[..., 1] + 65536 * picture[..., 2]
        assert ids.shape == (image["height"], image["width"])
        segments = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(np.unique(ids)) == set(segments)
        for id_, segment in segments.items():
            rows, cols = np.nonzero(ids == id_)
            assert segment["area"] == len(rows)
            box = [cols.min(), rows.min(), cols.max() + 1 - cols.min(), rows.max() + 1 - rows.min()]
            assert segment["bbox"] == box
        things = [s for s in annotation["segments_info"] if is_thing[s["category_id"]]]
        objects = [a for a in instances["annotations"] if a["image_id"] == annotation["image_id"]]
        assert len(things) == len(objects)
        for thing, instance in zip(things, objects, strict=True):
            assert {
                k: thing[k] for k in ("category_id", "iscrowd", "area", "bbox")
            }.items() <= instance.items()
            mask = _decode(instance["segmentation"], *ids.shape).astype(bool)
            assert np.array_equal(mask, ids == thing["id"])


def test_pycocotools_reads_the_files(small: Path) -> None:
    for kind in ("instances", "keypoints"):
        coco = COCO(str(small / "annotations" / f"{kind}_train.json"))
        assert len(coco.getImgIds()) == SMALL["train"]
        for annotation in coco.loadAnns(coco.getAnnIds()):
            assert coco.annToMask(annotation).sum() == annotation["area"]
    for image in _read(small, "instances_train.json")["images"]:
        pixels = cv2.imread(str(small / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)


def _hash(folder: Path) -> str:
    return hashlib.sha256(repr(sorted(_contents(folder).items())).encode()).hexdigest()


def _write_small(folder: Path) -> None:
    write_shapes(folder, num_images=SMALL)


def test_processes_that_start_at_once_share_one_result(small: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_small, args=(tmp_path / "v1",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert _hash(tmp_path / "v1") == _hash(small)
    assert os.listdir(tmp_path) == ["v1"]


def _write_and_die(folder: Path) -> None:
    write_split = shapes_writing._write_split

    def die_after_first(*args: object, **kwargs: object) -> None:
        write_split(*args, **kwargs)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    shapes_writing._write_split = die_after_first  # type: ignore[assignment]
    _write_small(folder)


def _leave_killed(folder: Path) -> Path:
    """The temporary folder of a process that was killed while it wrote `folder`."""
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(folder,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (leftover,) = folder.parent.iterdir()
    assert leftover.name.startswith(f".{folder.name}-")
    return leftover


@pytest.mark.skipif(not shapes_writing._process_space(), reason="process ids are looked up on Linux only")
def test_a_killed_process_leaves_no_half_data_set(small: Path, tmp_path: Path) -> None:
    _leave_killed(tmp_path / "v1")
    _write_small(tmp_path / "v1")
    assert _hash(tmp_path / "v1") == _hash(small)
    assert os.listdir(tmp_path) == ["v1"]


def test_what_may_belong_to_a_process_at_work_stays_until_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = _leave_killed(tmp_path / "v1")
    space = shapes_writing._process_space()
    alive = tmp_path / f".v1-{space}-{os.getpid()}-00000000.partial"
    other_host = tmp_path / ".v1-0123456789ab-999999999-00000000.partial"
    earlier_version = tmp_path / ".v1-999999999-00000000.partial"
    unrelated = tmp_path / f".v10-{space}-999999999-00000000.partial"
    for path in (alive, other_host, earlier_version, unrelated):
        path.mkdir()
    monkeypatch.setattr(shapes_writing, "_process_space", lambda: "")  # a system that does not tell
    shapes_writing._remove_leftovers(tmp_path / "v1")
    assert dead.exists()
    monkeypatch.setattr(shapes_writing, "_process_space", lambda: space)
    shapes_writing._remove_leftovers(tmp_path / "v1")
    assert dead.exists() == (not space)
    assert {alive, other_host, earlier_version, unrelated} <= set(tmp_path.iterdir())

    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    shapes_writing._remove_leftovers(tmp_path / "v1")
    assert list(tmp_path.iterdir()) == [unrelated]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/shapes/v1: .* cannot be written here .*PANOMASK_DATASETS"):
        write_shapes(tmp_path / "file" / "shapes" / "v1", num_images={"val": 1})
    (tmp_path / "v1" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match=r"v1: exists, but is no complete data set; remove it"):
        write_shapes(tmp_path / "v1", num_images={"val": 1})
    assert sorted(os.listdir(tmp_path)) == ["file", "v1"]


def test_registered_names_write_the_set_on_first_use(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    monkeypatch.setattr(shapes_writing, "SPLITS", SMALL)
    assert MetadataCatalog.get("shapes_val").thing_classes == list(THING_CLASSES)
    dicts = DatasetCatalog.get("shapes_val")
    assert _hash(tmp_path / "shapes" / "v2") == _hash(small)
    metadata = MetadataCatalog.get("shapes_val")
    assert metadata.evaluator_type == "coco"
    assert Path(metadata.json_file) == tmp_path / "shapes/v2/annotations/instances_val.json"
    assert [d["image_id"] for d in dicts] == [100001, 100002]
    assert all(Path(d["file_name"]).is_file() for d in dicts)

    keypoints = DatasetCatalog.get("shapes_keypoints_train")
    assert len(keypoints) == SMALL["train"]
    metadata = MetadataCatalog.get("shapes_keypoints_train")
    assert metadata.thing_classes == ["figure"]
    assert metadata.keypoint_names == list(KEYPOINT_NAMES)
    assert ("left_hand", "right_hand") in metadata.keypoint_flip_map
    assert len(metadata.keypoint_connection_rules) == 8
    assert len(metadata.keypoint_oks_sigmas) == len(KEYPOINT_NAMES)


def test_panoptic_sets_agree_with_the_instances(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    metadata = MetadataCatalog.get("shapes_panoptic_val")
    assert metadata.thing_classes == list(THING_CLASSES)
    assert metadata.stuff_classes == ["things", "sky", "grass", "water"]
    shutil.copytree(small, tmp_path / "shapes" / f"v{shapes_writing.VERSION}")
    panoptic, instances = DatasetCatalog.get("shapes_panoptic_val"), DatasetCatalog.get("shapes_val")
    for record, other in zip(panoptic, instances, strict=True):
        assert record["file_name"] == other["file_name"]
        found = sorted(annotation["category_id"] for annotation in record["annotations"])
        assert found == sorted(annotation["category_id"] for annotation in other["annotations"])
        assert Path(record["pan_seg_file_name"]).is_file()
        assert {s["category_id"] for s in record["segments_info"] if not s["isthing"]} <= {1, 2, 3}
