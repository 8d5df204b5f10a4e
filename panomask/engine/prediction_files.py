"""Predictions on image and video files: drawn, and in COCO's formats."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from panomask.data.catalog import Metadata
from panomask.data.detection_utils import read_image
from panomask.engine.prediction_ids import CocoIds
from panomask.engine.segmentation_results import PanopticResults, SemanticResults
from panomask.engine.video_files import VideoReader, VideoWriter
from panomask.errors import InputError
from panomask.evaluation import instances_to_coco_json
from panomask.json_file import write_json
from panomask.visualization import VideoVisualizer, VisImage, Visualizer

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
DRAWN_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Drawn images keep these; others are drawn as PNG, and every video as MP4."""

RESULTS_FILE = "coco_instances_results.json"
IMAGES_FILE = "images.json"
_OPACITY = 0.6
"""Of panoptic segments: what is below them stays visible."""


def list_inputs(patterns: Sequence[str]) -> list[Path]:
    """The files that are named, match a glob pattern (`**` included), or lie in a folder, each once.

    Raises:
        InputError: nothing is there, or a folder holds neither image nor video.
    """
    files: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if _is_media(file))
            if not found:
                known = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
                raise InputError(f"{pattern}: the folder holds no image or video (any of {known})")
        elif path.is_file():
            found = [path]
        else:
            found = sorted(file for file in map(Path, glob.glob(pattern, recursive=True)) if file.is_file())
            if not found:
                raise InputError(f"{pattern}: no such file or folder, and no file matches it; check --input")
        files |= dict.fromkeys(found)
    return list(files)


def _is_media(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def plan_outputs(inputs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Make `folder` and name the drawn files in it after the inputs, numbered where two would share a name.

    Returns:
        input -> drawn file.

    Raises:
        InputError: a drawn file would replace an input, or the folder cannot be made.
    """
    originals = {path.resolve() for path in inputs}
    planned: dict[Path, Path] = {}
    taken: set[Path] = set()
    for path in inputs:
        suffix = path.suffix.lower()
        keeps = DRAWN_IMAGE_SUFFIXES if not _is_video(path) else {".mp4"}
        name = path.name if suffix in keeps else path.name + (".mp4" if _is_video(path) else ".png")
        target, number = folder / name, 1
        while target in taken:
            number += 1
            target = folder / f"{Path(name).stem}_{number}{Path(name).suffix}"
        if target.resolve() in originals:
            raise InputError(f"{target}: the drawn file would replace an input; give another --output")
        taken.add(target)
        planned[path] = target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made a folder ({error.strerror}); give another --output"
        ) from error
    return planned


class PredictionFiles:
    """Predicts on files, writes what it drew at once and the results in COCO's formats on `save`.

    Of what the model gives, panoptic segments are drawn, else objects, else semantic labels.

    Attributes:
        images: one dict an image or frame.
        results: the objects, one dict each, if the model gives objects.
        panoptic: the panoptic segments.
        semantic: the semantic labels, of models that give no panoptic segments.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], dict[str, Any]],
        metadata: Metadata,
        folder: Path,
        *,
        ids: CocoIds,
        confidence_threshold: float,
    ) -> None:
        """
        Args:
            predict: BGR image -> output of a model, such as a `DefaultPredictor`.
            metadata: names and colours for drawing.
            folder: of all output; it exists.
            ids: of images and categories.
            confidence_threshold: detections below it are neither drawn nor written; panoptic segments are
                what the model gives.
        """
        self._predict = predict
        self._metadata = metadata
        self._folder = folder
        self._ids = ids
        self._threshold = confidence_threshold
        self._has_objects = False
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.panoptic = PanopticResults(folder, metadata, ids)
        self.semantic = SemanticResults(folder, metadata)

    def process(self, path: Path, target: Path) -> None:
        """Predict on one image or video and draw it to `target`; InputError if it cannot be read."""
        if _is_video(path):
            self._process_video(path, target)
        else:
            self._process_image(path, target)

    def save(self) -> None:
        """Write the results of all that was processed, and the list of images that they refer to."""
        images = {"info": {"description": "images of predictions"}, "images": self.images}
        write_json(self._folder / IMAGES_FILE, {**images, "categories": self._ids.categories})
        self.panoptic.save()
        self.semantic.save()
        if self._has_objects or not (self.panoptic.annotations or self.semantic.annotations):
            write_json(self._folder / RESULTS_FILE, self.results)

    def summary(self) -> str:
        """What was found, in words."""
        num_segments = sum(len(entry["segments_info"]) for entry in self.panoptic.annotations)
        found = f"{num_segments} segments" if num_segments else f"{len(self.results)} objects"
        if self.semantic.annotations and not self._has_objects:
            found = "semantic labels"
        return f"{found} in {len(self.images)} images and frames"

    def _process_image(self, path: Path, target: Path) -> None:
        image = read_image(path, format="BGR")
        image_id = self._ids.image_id(path)
        output = self._run(image)
        self._draw(image, output).save(str(target))
        self._keep(image, output, image_id=image_id, file_name=str(path))

    def _process_video(self, path: Path, target: Path) -> None:
        drawer = VideoVisualizer(self._metadata)
        with VideoReader(path) as video, VideoWriter(target, video.frames_per_second) as drawn:
            frames = tqdm(video, desc=path.name, total=video.num_frames or None, unit="frame", disable=None)
            for number, frame in enumerate(frames):
                image_id = self._ids.image_id(path)
                output = self._run(frame)
                drawn.write(self._draw(frame, output, drawer).get_image())
                self._keep(frame, output, image_id=image_id, file_name=str(path), frame=number)

    def _run(self, image: np.ndarray) -> dict[str, Any]:
        """What the model gives that can be drawn and written, on the CPU; labels (H, W) as "sem_seg"."""
        output, result = self._predict(image), dict[str, Any]()
        if "panoptic_seg" in output:
            ids, infos = output["panoptic_seg"]
            result["panoptic_seg"] = torch.as_tensor(ids).to("cpu"), infos
        elif "sem_seg" in output:
            labels = output["sem_seg"].max(dim=0).indices  # argmax takes 2 to 10 times as long on the CPU
            result["sem_seg"] = labels.to("cpu").numpy()
        if "instances" in output:
            instances = output["instances"]
            result["instances"] = instances[instances.scores >= self._threshold].to("cpu")
        if not result:
            raise InputError(
                f"the model gives {', '.join(output)}, but objects, panoptic segments and semantic labels are"
                " what is drawn and written; use a model that finds them (MODEL.META_ARCHITECTURE"
                " GeneralizedRCNN, PanopticFPN, SemanticSegmentor)"
            )
        return result

    def _draw(
        self, image: np.ndarray, output: dict[str, Any], video: VideoVisualizer | None = None
    ) -> VisImage:
        """Draw on a BGR image; `video` remembers the objects of the frames before."""
        rgb = image[:, :, ::-1]
        if "sem_seg" in output and "instances" in output:
            below = Visualizer(rgb, self._metadata)
            rgb = below.draw_semantic_background(output["sem_seg"], has_objects=True).get_image()
        picture = Visualizer(rgb, self._metadata)
        if "panoptic_seg" in output:
            ids, infos = output["panoptic_seg"]
            if video is None:
                return picture.draw_panoptic_seg(ids, infos, alpha=_OPACITY)
            return video.draw_panoptic_seg_predictions(rgb, ids, infos, alpha=_OPACITY)
        if "instances" in output:
            if video is None:
                return picture.draw_instance_predictions(output["instances"])
            return video.draw_instance_predictions(rgb, output["instances"])
        return picture.draw_sem_seg(output["sem_seg"], alpha=_OPACITY)

    def _keep(self, image: np.ndarray, output: dict[str, Any], **record: Any) -> None:
        height, width = image.shape[:2]
        record = {"id": record.pop("image_id"), **record, "height": height, "width": width}
        if "panoptic_seg" in output:
            self.panoptic.add(record, *output["panoptic_seg"])
        elif "sem_seg" in output:
            self.semantic.add(record, output["sem_seg"])
        self.images.append(record)
        self._has_objects |= "instances" in output
        for result in instances_to_coco_json(output["instances"], record["id"]) if self._has_objects else ():
            self.results.append({**result, "category_id": self._ids.category_id(result["category_id"])})
