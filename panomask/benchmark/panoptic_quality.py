#!/usr/bin/env python
"""What panoptic quality costs: beside the decoding of the truth's PNG files, and beside a plain reference.

Images of segments with ragged borders are drawn and written as PNG files; a prediction of each, in memory, is
the truth moved by a few pixels. Measured in turn, on 50 images after another, in seconds of the processor, so
that a busy machine hits all alike:

  decode      the truth's PNG as an array of colours, nothing else
  panomask    COCOPanopticEvaluator, from predictions in memory to the numbers
  reference   predictions written as PNG, both PNGs read, pairs of ids counted by np.unique

Then the memory that the evaluator holds after a fifth of the images and after all of them. The numbers of
panomask and of the reference must agree. Exit status 1 says that a limit was missed: 1.5 times the decoding,
half of the reference.
"""

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from panomask.data import MetadataCatalog
from panomask.engine import run_tool
from panomask.errors import InputError
from panomask.evaluation import COCOPanopticEvaluator
from panomask.panoptic_png import write_segment_ids

NAME = "benchmark_panoptic"
NUM_THINGS, NUM_STUFF = 80, 53
DECODE_LIMIT, REFERENCE_LIMIT = 1.5, 0.5
GROUP = 50
"""Images of which predictions are in memory at a time, and which one thing is measured on before the next."""

SHIFT = (2, 3)
"""Rows and columns that a prediction is off."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500, metavar="N", help="default: %(default)s")
    parser.add_argument("--height", type=int, default=480, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--width", type=int, default=640, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument(
        "--segments", type=int, default=11, metavar="N", help="an image; default: %(default)s"
    )
    args = parser.parse_args()
    for name in ("images", "height", "width", "segments"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; give 1 or more")
    return args


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

    def prediction(self, number: int) -> tuple[torch.Tensor, list[dict[str, Any]]]:
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

    def pq(self) -> float:
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


def measure_time(scenes: Scenes) -> dict[str, Any]:
    """Seconds of the processor for each, over all images, and the two PQ."""
    evaluator, reference = COCOPanopticEvaluator(NAME), Reference(scenes)
    seconds = dict.fromkeys(("decode", "panomask", "reference"), 0.0)

    def timed(name: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        seconds[name] += time.process_time() - start
        return result

    for start in range(0, len(scenes.annotations), GROUP):
        numbers = range(start, min(start + GROUP, len(scenes.annotations)))
        predictions = [(number, *scenes.prediction(number)) for number in numbers]
        for number in numbers:
            timed("decode", partial(decode, scenes.folder / scenes.annotations[number]["file_name"]))
        for number, *predicted in predictions:
            batch = [{"image_id": number}], [{"panoptic_seg": predicted}]
            timed("panomask", partial(evaluator.process, *batch))
        for prediction in predictions:
            timed("reference", partial(reference.process, *prediction))
    metrics = timed("panomask", evaluator.evaluate)["panoptic_seg"]
    return {"seconds": seconds, "pq": metrics["PQ"], "reference_pq": reference.pq()}


def measure_memory(scenes: Scenes) -> dict[int, float]:
    """Number of images -> KiB that panomask's code allocated and holds after so many."""
    num_images = len(scenes.annotations)
    evaluator = COCOPanopticEvaluator(NAME)
    held: dict[int, float] = {}
    tracemalloc.start()
    for number in range(num_images):
        predicted, info = scenes.prediction(number)
        evaluator.process([{"image_id": number}], [{"panoptic_seg": (predicted, info)}])
        del predicted, info
        if number + 1 in {max(num_images // 5, 1), num_images}:
            # Of PIL and numpy, caches of bounded size fill up meanwhile; they are not the evaluator's.
            snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*panomask*")])
            held[number + 1] = sum(entry.size for entry in snapshot.statistics("filename")) / 1024
    tracemalloc.stop()
    return held


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scenes = Scenes(Path(folder), args.images, (args.height, args.width), args.segments)
        MetadataCatalog.get(NAME).set(panoptic_json=f"{folder}/truth.json", panoptic_root=folder)
        try:
            found, held = measure_time(scenes), measure_memory(scenes)
        finally:
            MetadataCatalog.remove(NAME)
    seconds = found["seconds"]
    rows = [
        [name, f"{value:.2f}", f"{1000 * value / args.images:.2f}", f"{value / seconds['decode']:.2f}"]
        for name, value in seconds.items()
    ]
    print(f"{args.images} images of {args.width} x {args.height}, {args.segments} segments\n")
    print(tabulate(rows, ["", "seconds", "ms an image", "of decode"], tablefmt="pipe", disable_numparse=True))
    print("\nheld in memory: " + ", ".join(f"{kib:.0f} KiB after {n} images" for n, kib in held.items()))
    print(f"PQ {found['pq']:.6f}, reference {found['reference_pq']:.6f}")
    ratios = [
        ("the decoding", seconds["panomask"] / seconds["decode"], DECODE_LIMIT),
        ("the reference", seconds["panomask"] / seconds["reference"], REFERENCE_LIMIT),
    ]
    for name, ratio, limit in ratios:
        print(f"{ratio:.2f} times {name}: {'met' if ratio <= limit else 'MISSED'} (limit {limit})")
    if abs(found["pq"] - found["reference_pq"]) > 1e-9:
        raise RuntimeError("panomask and the reference disagree")
    sys.exit(any(ratio > limit for _, ratio, limit in ratios))


if __name__ == "__main__":
    run_tool(main)
