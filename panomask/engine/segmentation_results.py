"""Panoptic and semantic predictions as files: a PNG an image, and on `save` what they stand for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from panomask.atomic_file import write_atomically
from panomask.data.catalog import Metadata
from panomask.engine.prediction_ids import CocoIds
from panomask.errors import InputError
from panomask.json_file import write_json
from panomask.panoptic_png import write_segment_ids
from panomask.structures.segment_map import areas_and_boxes_xywh
from panomask.visualization.drawn_maps import panoptic_segments
from panomask.visualization.segment_map_drawing import number_segments

PANOPTIC_NAME = "panoptic_predictions"
SEMANTIC_NAME = "semantic_predictions"
"""Each is a folder of PNG files and, with .json behind it, the list of them."""


class _PngFolder:
    """A folder of PNG files, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()

    def new_path(self, source: str) -> Path:
        """The file for predictions on `source`: its name with .png; numbered if that is taken."""
        stem = Path(source).stem
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{self._folder}: cannot be made a folder ({error.strerror})") from error
        return self._folder / f"{name}.png"


class PanopticResults:
    """COCO's panoptic format: `panoptic_predictions.json` and a PNG an image in `panoptic_predictions/`."""

    def __init__(self, folder: Path, metadata: Metadata, ids: CocoIds) -> None:
        self._folder, self._metadata, self._ids = folder, metadata, ids
        self._pngs = _PngFolder(folder / PANOPTIC_NAME)
        self._images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self,
        image: dict[str, Any],
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[dict[str, Any]] | None,
    ) -> None:
        """Write the segments of one image.

        Args:
            image: its entry in the list of images: `id`, `file_name`, perhaps `frame`.
            panoptic_seg, segments_info: as a model gives them.

        Raises:
            InputError: a segment of a class without a name.
        """
        values, infos = panoptic_segments(panoptic_seg, segments_info, self._metadata)
        numbered = number_segments(values, [info["id"] for info in infos])
        areas, boxes = areas_and_boxes_xywh(numbered, len(infos), first=1)
        segments = [
            {
                "id": number,
                "category_id": self._ids.segment_category_id(info),
                "area": area,
                "bbox": box,
                "iscrowd": 0,
                **({"score": float(info["score"])} if info.get("score") is not None else {}),
            }
            for number, (info, area, box) in enumerate(zip(infos, areas, boxes, strict=True), start=1)
            if area
        ]
        path = self._pngs.new_path(_source(image))
        write_segment_ids(path, numbered)
        self._images.append(image)
        self.annotations.append({"image_id": image["id"], "file_name": path.name, "segments_info": segments})

    def save(self) -> None:
        """Write the JSON file, if there is anything to write."""
        if self._images:
            content = {"images": self._images, "annotations": self.annotations}
            write_json(
                self._folder / f"{PANOPTIC_NAME}.json",
                {**content, "categories": self._ids.panoptic_categories()},
            )


class SemanticResults:
    """Label images: a grey-scale PNG an image in `semantic_predictions/`, and a JSON file with the names."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        self._folder, self._names = folder, list(metadata.get("stuff_classes") or [])
        self._pngs = _PngFolder(folder / SEMANTIC_NAME)
        self._images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, image: dict[str, Any], labels: np.ndarray) -> None:
        """Write the labels (H, W) of one image, in 16 bits where 8 do not hold them."""
        path = self._pngs.new_path(_source(image))
        dtype = np.uint8 if labels.size == 0 or labels.max() < 256 else np.uint16
        with write_atomically(path, flush_to_disk=False) as file:
            Image.fromarray(labels.astype(dtype)).save(file, format="PNG")
        self._images.append(image)
        self.annotations.append({"image_id": image["id"], "file_name": path.name})

    def save(self) -> None:
        """Write the JSON file, if there is anything to write."""
        if self._images:
            categories = [{"id": label, "name": name} for label, name in enumerate(self._names)]
            content = {"images": self._images, "annotations": self.annotations, "categories": categories}
            write_json(self._folder / f"{SEMANTIC_NAME}.json", content)


def _source(image: dict[str, Any]) -> str:
    """The name of an image, or of a frame of a video, with an ending."""
    path = Path(image["file_name"])
    return f"{path.stem}_{image['frame']:06d}.png" if "frame" in image else path.name
