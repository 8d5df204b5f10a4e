"""The input pipeline in one process: from a dataset dict and its image file to what a model takes.

The usual way is Detectron2's: PIL decodes and resizes, each object's annotation is transformed by itself.
"""

import argparse
import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from panomask.benchmark.comparison import Comparison
from panomask.data import transforms as T
from panomask.data.dataset_mapper import DatasetMapper
from panomask.data.image_io import read_image
from panomask.data.serialized_list import SerializedList
from panomask.structures import Boxes, BoxMode, Instances, PolygonMasks

Record = dict[str, Any]
Sample = dict[str, Any]
Way = Callable[[Any], Any]

MAX_SIZE = 1333
QUALITY = 95
"""Of the JPEG files: they come to COCO's 150 KB or so."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of what is read."""
    parser.add_argument("--image-size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--shortest-edge", type=int, default=800, help="after resizing (default: %(default)s)"
    )
    parser.add_argument("--objects", type=int, default=7, help="in each image (default: %(default)s)")
    parser.add_argument("--images", type=int, default=8, help="read in one run (default: %(default)s)")
    parser.add_argument("--records", type=int, default=2000, help="held in memory (default: %(default)s)")


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The rows of the table, on one thread, as a loader's worker has."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from _comparisons(args, write_data_set(Path(folder), args))
    finally:
        torch.set_num_threads(num_threads)


def _comparisons(args: argparse.Namespace, records: list[Record]) -> Iterator[Comparison]:
    height, width = args.image_size
    files = [record["file_name"] for record in records]
    images = [np.ascontiguousarray(usual_read(file)) for file in files]
    resize = T.ResizeShortestEdge((args.shortest_edge,), MAX_SIZE, "choice")
    mapper = DatasetMapper(
        True, augmentations=[resize, T.RandomFlip()], image_format="BGR", use_instance_mask=True
    )
    yield _row(
        f"training sample of Mask R-CNN (decode, resize shortest edge {args.shortest_edge}, flip, boxes,"
        f" polygons), {width} x {height} JPEG, {args.objects} objects",
        mapper,
        lambda record: usual_sample(record, args.shortest_edge),
        records,
        reference_name="PIL, annotations one by one",
        agreement=samples_agree,
        target=2.5,
    )
    yield _row(
        f"decode {width} x {height} JPEG to BGR",
        lambda file: read_image(file, "BGR"),
        usual_read,
        files,
        reference_name="PIL",
        agreement=lambda ours, reference: images_agree(ours, reference, 0),
    )
    for edge in (args.shortest_edge, args.shortest_edge // 4):
        yield _resizing(images, edge)
    yield _annotations(mapper, records, resize.get_transform(images[0]))
    yield _records_in_memory(list(itertools.islice(itertools.cycle(records), args.records)))


def _row(
    name: str,
    ours: Way,
    reference: Way,
    items: Sequence[Any],
    *,
    reference_name: str,
    agreement: Callable[[list[Any], list[Any]], str],
    **options: Any,
) -> Comparison:
    """Two ways to make something of each item. Timed, nothing is kept, as a loader's worker keeps nothing."""

    def run(way: Way) -> Any:
        np.random.seed(0)
        for item in items:
            result = way(item)
        return result

    def agree(*_: Any) -> str:
        results = []
        for way in (ours, reference):
            np.random.seed(0)
            results.append([way(item) for item in items])
        return agreement(*results)

    return Comparison(
        name, lambda: run(ours), lambda: run(reference), reference_name, agreement=agree, **options
    )


def _resizing(images: Sequence[np.ndarray], edge: int) -> Comparison:
    height, width = images[0].shape[:2]
    transform = T.ResizeShortestEdge((edge,), MAX_SIZE, "choice").get_transform(images[0])
    size = transform.new_h, transform.new_w
    return _row(
        f"resize {width} x {height} to shortest edge {edge}",
        transform.apply_image,
        lambda image: usual_resize(image, size),
        images,
        reference_name="PIL",
        agreement=lambda ours, reference: images_agree(ours, reference, 1),
    )


def _annotations(mapper: DatasetMapper, records: list[Record], resize: T.ResizeTransform) -> Comparison:
    """The dataset dict without its image: boxes and polygons resized and mirrored."""
    size, new_size = (resize.h, resize.w), (resize.new_h, resize.new_w)
    transforms = T.TransformList([resize, T.HFlipTransform(resize.new_w)])

    def ours(record: Record) -> Sample:
        sample = dict(record)  # the mapper's method leaves the annotations in it as they are
        mapper._transform_annotations(sample, transforms, new_size)
        return sample

    def reference(record: Record) -> Sample:
        sample = dict(record)  # `usual_instances` leaves them as they are, too
        sample["instances"] = usual_instances(sample.pop("annotations"), size, new_size, is_mirrored=True)
        return sample

    return _row(
        f"annotations alone ({len(records[0]['annotations'])} objects: boxes, polygons)",
        ours,
        reference,
        records,
        reference_name="one by one",
        agreement=samples_agree,
    )


def _records_in_memory(records: list[Record]) -> Comparison:
    """What `DatasetFromList` holds for all workers, against a list, which each would come to hold."""
    packed = SerializedList(records)

    def agreement(ours: list[Record], reference: list[Record]) -> str:
        assert ours == reference
        return f"equal; {len(packed.data) / len(records) / 1024:.1f} KiB a record, shared by all workers"

    return _row(
        f"{len(records)} dataset dicts out of memory, to be edited",
        packed.__getitem__,
        lambda place: copy.deepcopy(records[place]),
        range(len(records)),
        reference_name="a list, deep copies",
        agreement=agreement,
        rounds=5,
    )


def usual_sample(record: Record, shortest_edge: int) -> Sample:
    """A training sample as Detectron2's mapper makes it."""
    record = copy.deepcopy(record)
    image = usual_read(record["file_name"])
    height, width = image.shape[:2]
    edge = np.random.choice((shortest_edge,))
    new_size = T.ResizeShortestEdge.get_output_shape(height, width, edge, MAX_SIZE)
    image = usual_resize(image, new_size)
    is_mirrored = np.random.uniform() < 0.5
    if is_mirrored:
        image = np.flip(image, axis=1)
    record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    record["instances"] = usual_instances(record.pop("annotations"), (height, width), new_size, is_mirrored)
    return record


def usual_read(file_name: str) -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    with Image.open(file_name) as image:
        return np.asarray(image.convert("RGB"))[:, :, ::-1]


def usual_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) to (height, width, 3) of `size`."""
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def usual_instances(
    annotations: list[dict[str, Any]], size: tuple[int, int], new_size: tuple[int, int], is_mirrored: bool
) -> Instances:
    """Boxes and polygons, object by object, from an image of `size` to one of `new_size`."""
    (height, width), (new_height, new_width) = size, new_size

    def move(points: np.ndarray) -> np.ndarray:
        points[:, 0] *= new_width / width
        points[:, 1] *= new_height / height
        if is_mirrored:
            points[:, 0] = new_width - points[:, 0]
        return points

    boxes, polygons = [], []
    for annotation in annotations:
        x0, y0, x1, y1 = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        corners = move(np.array([[x0, y0], [x1, y1]], dtype=np.float64))
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        boxes.append(np.clip(box, 0, (new_width, new_height, new_width, new_height)))
        rings = (np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in annotation["segmentation"])
        polygons.append([move(ring).reshape(-1) for ring in rings])
    instances = Instances(new_size)
    instances.gt_boxes = Boxes(np.array(boxes, dtype=np.float32))
    instances.gt_classes = torch.tensor([annotation["category_id"] for annotation in annotations])
    instances.gt_masks = PolygonMasks(polygons)
    return instances[instances.gt_boxes.nonempty(threshold=1e-5) & instances.gt_masks.nonempty()]


def images_agree(ours: Sequence[np.ndarray], reference: Sequence[np.ndarray], at_most: int) -> str:
    """In words; AssertionError where pixels differ by more grey levels than `at_most`."""
    assert len(ours) == len(reference)
    counts = np.zeros(256, dtype=np.int64)
    for image, expected in zip(ours, reference, strict=True):
        assert image.shape == expected.shape, (image.shape, expected.shape)
        counts += np.bincount(cv2.absdiff(image, np.ascontiguousarray(expected)).ravel(), minlength=256)
    largest = int(np.flatnonzero(counts).max(initial=0))
    assert largest <= at_most, f"pixels differ by {largest} grey levels"
    share = 1 - counts[0] / counts.sum()
    return f"one grey level in {share:.1e} of the pixels" if largest else "equal pixels"


def samples_agree(ours: Sequence[Sample], reference: Sequence[Sample]) -> str:
    """In words; AssertionError where boxes, classes or polygons differ, or pixels by more than one level."""
    for sample, expected in zip(ours, reference, strict=True):
        instances, truth = sample["instances"], expected["instances"]
        assert torch.equal(instances.gt_boxes.tensor, truth.gt_boxes.tensor)
        assert torch.equal(instances.gt_classes, truth.gt_classes)
        for rings, true_rings in zip(instances.gt_masks, truth.gt_masks, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(rings, true_rings, strict=True))
    if "image" not in ours[0]:
        return "equal"
    pixels = [sample["image"].numpy() for sample in ours]
    expected_pixels = [sample["image"].numpy() for sample in reference]
    return f"equal objects, {images_agree(pixels, expected_pixels, 1)}"


def write_data_set(folder: Path, args: argparse.Namespace) -> list[Record]:
    """Dataset dicts of images with the roughness of photographs, and of star-shaped objects."""
    generator = np.random.default_rng(0)
    height, width = args.image_size
    records = []
    for number in range(args.images):
        file_name = str(folder / f"{number}.jpg")
        Image.fromarray(_photograph(generator, height, width)).save(file_name, quality=QUALITY)
        annotations = [_object(generator, height, width) for _ in range(args.objects)]
        record = {"file_name": file_name, "image_id": number, "height": height, "width": width}
        records.append({**record, "annotations": annotations})
    return records


def _photograph(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of all scales, (H, W, 3) uint8."""
    image = np.zeros((height, width, 3))
    for scale in 2 ** np.arange(8):
        grid = generator.normal(size=(height // scale + 2, width // scale + 2, 3))
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * scale**0.45
    return np.clip(image / image.std() * 50 + 120, 0, 255).astype(np.uint8)


def _object(generator: np.random.Generator, height: int, width: int) -> dict[str, Any]:
    """One or two rings of about 40 points, as COCO's objects have."""
    rings = []
    for _ in range(generator.integers(1, 3)):
        angles = np.sort(generator.uniform(0, 2 * np.pi, generator.integers(20, 60)))
        radii = generator.uniform(0.05, 0.2, len(angles)) * min(height, width)
        center = generator.uniform(0.25, 0.75, 2) * (width, height)
        rings.append(center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    points = np.concatenate(rings)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": int(generator.integers(80)),
        "iscrowd": 0,
        "segmentation": [ring.round(2).ravel().tolist() for ring in rings],
    }
