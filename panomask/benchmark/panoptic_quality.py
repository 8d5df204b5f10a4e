"""Panoptic quality beside a plain reference, and beside the decoding of the truth's PNG files alone.

Images of segments with ragged borders are drawn and written as PNG files; a prediction of each, in memory, is
the truth moved by a few pixels. Ours goes from predictions in memory to the numbers; the reference writes
them as PNG, reads both PNGs and counts pairs of ids by np.unique.
"""

import argparse
import json
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from panomask.benchmark.comparison import Comparison
from panomask.data import MetadataCatalog
from panomask.evaluation import COCOPanopticEvaluator
from panomask.panoptic_png import write_segment_ids

NAME = "benchmark_panoptic_quality"
NUM_THINGS, NUM_STUFF = 80, 53
REFERENCE_TARGET, DECODING_TARGET = 2.0, 1 / 1.5
"""Twice as fast as the reference; no more than 1.5 times as long as the decoding takes."""
SHIFT = (2, 3)
"""Rows and columns that a prediction is off."""
ROUNDS = 5

Prediction = tuple[torch.Tensor, list[dict[str, Any]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = {
        "images": (100, "all of their predictions are in memory at a time"),
        "height": (480, "of an image, pixels"),
        "width": (640, "of an image, pixels"),
        "segments": (11, "of an image"),
    }
    for name, (default, help_) in sizes.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{help_} (%(default)s)"
        )


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The two rows, on one thread; the data set lives as long as they do."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            scenes = Scenes(Path(folder), args.images, (args.height, args.width), args.segments)
            MetadataCatalog.get(NAME).set(panoptic_json=f"{folder}/truth.json", panoptic_root=folder)
            yield from _comparisons(scenes)
    finally:
        MetadataCatalog.remove(NAME)
        torch.set_num_threads(num_threads)


def _comparisons(scenes: "Scenes") -> Iterator[Comparison]:
    predictions = [scenes.prediction(number) for number in range(len(scenes.annotations))]
    height, width = scenes.size
    what = f"{len(predictions)} images of {height} x {width}"
    yield Comparison(
        name=f"panoptic quality, {what}",
        ours=lambda: evaluate(predictions),
        reference=lambda: Reference(scenes).pq(predictions),
        reference_name="PNG files and np.unique",
        agreement=lambda ours, reference: _agreement(ours, reference, held_memory(scenes)),
        target=REFERENCE_TARGET,
        rounds=ROUNDS,
    )
    yield Comparison(
        name=f"panoptic quality, beside decoding alone, {what}",
        ours=lambda: evaluate(predictions),
        reference=lambda: [decode(scenes.folder / entry["file_name"]) for entry in scenes.annotations],
        reference_name="PIL reads the truth's PNG",
        agreement=lambda ours, _: f"PQ {ours:.1f}; decoding is a part of it",
        target=DECODING_TARGET,
        rounds=ROUNDS,
    )


def evaluate(predictions: list[Prediction]) -> float:
    """PQ in percent by panomask's evaluator."""
    evaluator = COCOPanopticEvaluator(NAME)
    for number, prediction in enumerate(predictions):
        evaluator.process([{"image_id": number}], [{"panoptic_seg": prediction}])
    results = evaluator.evaluate()
    assert results is not None
    return results["panoptic_seg"]["PQ"]


def held_memory(scenes: "Scenes") -> dict[int, float]:
    """Number of images -> KiB that panomask's code allocated and holds after so many: a fifth, and all."""
    num_images = len(scenes.annotations)
    evaluator = COCOPanopticEvaluator(NAME)
    held: dict[int, float] = {}
    tracemalloc.start()
    try:
        for number in range(num_images):
            prediction = scenes.prediction(number)
            evaluator.process([{"image_id": number}], [{"panoptic_seg": prediction}])
            del prediction
            if number + 1 in {max(num_images // 5, 1), num_images}:
                # Of PIL and numpy, caches of bounded size fill up meanwhile; they are not the evaluator's.
                snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*panomask*")])
                held[number + 1] = sum(entry.size for entry in snapshot.statistics("filename")) / 1024
    finally:
        tracemalloc.stop()
    return held


def _agreement(ours: float, reference: float, held: dict[int, float]) -> str:
    difference = abs(ours - reference)
    assert difference <= 1e-9, f"PQ differs by {difference:.3g}"
    memory = ", ".join(f"{kib:.0f} KiB after {number}" for number, kib in held.items())
    return f"PQ {ours:.1f} within {difference:.0e}; holds {memory} images"


class Scenes:
    """Truth on disk and predictions in memory, drawn anew whenever asked for.

    Borders are about as ragged as COCO's: a truth has some 5000 runs of equal pixels.
    """

    def __init__(self, folder: Path, num_images: int, size: tuple[int, int], num_segments: int) -> None:
        self.folder, self.size, self.num_segments = folder, size, num_segments
        rng = np.random.default_rng(0)
        small = rng.standard_normal((2, size[0] // 8 + 2, size[1] // 8 + 2)).astype(np.float32)
        rows, columns = np.arange(size[0]), np.arange(size[1])
        wobble = [5 * np.kron(field, np.ones((8, 8)))[: size[0], : size[1]] for field in small]
        self._rows = rows[:, None] + wobble[0] + rng.standard_normal(size)
        self._columns = columns + wobble[1]
        self.annotations = [self._write(number) for number in range(num_images)]
        categories = [
            {"id": k + 1, "name": f"class {k + 1}", "isthing": int(k < NUM_THINGS)}
            for k in range(NUM_THINGS + NUM_STUFF)
        ]
        images = [{"id": n, "height": size[0], "width": size[1]} for n in range(num_images)]
        content = {"images": images, "annotations": self.annotations, "categories": categories}
        (folder / "truth.json").write_text(json.dumps(content))

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) segment ids, and the category of each segment; segment 0 is void."""
        rng = np.random.default_rng([1, number])
        centers = rng.random((self.num_segments + 1, 2)) * self.size
        distances = [(self._rows - y) ** 2 + (self._columns - x) ** 2 for y, x in centers]
        ids = np.concatenate([[0], rng.choice(2**24 - 1, self.num_segments, replace=False) + 1])
        return ids[np.argmin(distances, axis=0)], rng.integers(1, NUM_THINGS + NUM_STUFF + 1, 2**8)

    def _write(self, number: int) -> dict[str, Any]:
        ids, categories = self._draw(number)
        name = f"{number:06d}.png"
        pixels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(self.folder / name)
        found = np.setdiff1d(ids, [0])
        listed = [
            {"id": int(id_), "category_id": int(c)}
            for id_, c in zip(found, np.resize(categories, len(found)), strict=True)
        ]
        return {"image_id": number, "file_name": name, "segments_info": listed}

    def prediction(self, number: int) -> Prediction:
        """The truth moved, its segments numbered from 1, every tenth of another category."""
        ids, _ = self._draw(number)
        listed = self.annotations[number]["segments_info"]
        order = np.argsort([segment["id"] for segment in listed])
        moved = np.roll(ids, SHIFT, axis=(0, 1))
        numbered = np.searchsorted(np.array([0, *sorted(s["id"] for s in listed)]), moved)
        info = [
            {"id": place + 1, "category_id": 1 if (number + place) % 10 == 0 else listed[k]["category_id"]}
            for place, k in enumerate(order)
        ]
        return torch.from_numpy(numbered.astype(np.int32)), info


class Reference:
    """The definition, pixel by pixel and segment by segment, from PNG files."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self.counts = np.zeros((NUM_THINGS + NUM_STUFF + 1, 4))  # IoU, TP, FP, FN

    def process(self, number: int, predicted: torch.Tensor, info: list[dict[str, Any]]) -> None:
        folder, annotation = self._scenes.folder, self._scenes.annotations[number]
        write_segment_ids(folder / "prediction.png", predicted.numpy())
        truth_ids, ids = (_read(folder / name) for name in (annotation["file_name"], "prediction.png"))
        truth = {s["id"]: s["category_id"] for s in annotation["segments_info"]}
        found = {s["id"]: s["category_id"] for s in info}
        areas_truth, areas = _count(truth_ids), _count(ids)
        pairs = {(k >> 24, k & 2**24 - 1): n for k, n in _count(truth_ids * 2**24 + ids).items()}
        matched: set[tuple[str, int]] = set()
        for (t, p), pixels in pairs.items():
            if t and p and truth[t] == found[p]:
                iou = pixels / (areas_truth[t] + areas[p] - pixels - pairs.get((0, p), 0))
                if iou > 0.5:
                    self.counts[truth[t], :2] += iou, 1
                    matched |= {("truth", t), ("found", p)}
        for t, category in truth.items():
            self.counts[category, 3] += ("truth", t) not in matched
        for p, category in found.items():
            is_wrong = ("found", p) not in matched and pairs.get((0, p), 0) / areas[p] <= 0.5
            self.counts[category, 2] += is_wrong

    def pq(self, predictions: list[Prediction]) -> float:
        """In percent, of one prediction for each image."""
        for number, prediction in enumerate(predictions):
            self.process(number, *prediction)
        iou, tp, fp, fn = self.counts[self.counts[:, 1:].any(axis=1)].T
        return float(100 * (iou / (tp + fp / 2 + fn / 2)).mean())


def decode(path: Path) -> np.ndarray:
    """(H, W, 3) colours of a PNG file."""
    return np.asarray(Image.open(path))


def _read(path: Path) -> np.ndarray:
    pixels = decode(path).astype(np.int64)
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]


def _count(ids: np.ndarray) -> dict[int, int]:
    values, numbers = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))
