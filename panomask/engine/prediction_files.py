"""Predictions on image and video files: drawn, and in COCO's results format."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from panomask.data.catalog import Metadata
from panomask.data.detection_utils import read_image
from panomask.engine.video_files import VideoReader, VideoWriter
from panomask.errors import InputError
from panomask.evaluation import instances_to_coco_json
from panomask.json_file import read_json, write_json
from panomask.structures import Instances
from panomask.visualization import VideoVisualizer, Visualizer

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
DRAWN_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""Drawn images keep these; others are drawn as PNG, and every video as MP4."""

RESULTS_FILE = "coco_instances_results.json"
IMAGES_FILE = "images.json"


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


class CocoIds:
    """Which ids images and categories get in the results.

    Images are numbered from 1 in the order in which they are processed; categories have the data set's ids
    where the metadata knows them, else 0..K-1. With an annotation file both are the file's, found by name, so
    that the results can be scored against it.
    """

    def __init__(self, metadata: Metadata, annotation_file: str | None = None) -> None:
        """
        Args:
            metadata: with `thing_classes`, in the order of the model's classes.
            annotation_file: COCO annotations to take ids from.
        """
        names = list(metadata.get("thing_classes") or [])
        self._file = annotation_file
        self._by_name: dict[str, list[tuple[str, Any]]] = {}
        self.next_id = 1
        if annotation_file is None:
            to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {}
            ids: list[Any] = list(range(len(names)))
            for dataset_id, contiguous in to_contiguous.items():
                ids[contiguous] = dataset_id
        else:
            content = read_json(annotation_file)
            ids = self._ids_of_file(content, names)
            for image in content["images"]:
                file_name = str(image["file_name"])
                self._by_name.setdefault(Path(file_name).name, []).append((file_name, image["id"]))
        self.categories = [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]

    def _ids_of_file(self, content: Any, names: list[str]) -> list[Any]:
        if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
            raise InputError(f"{self._file}: no COCO annotations; 'images' and 'categories' are needed")
        by_name = {category["name"]: category["id"] for category in content["categories"]}
        missing = [name for name in names if name not in by_name]
        if missing or not names:
            raise InputError(
                f"{self._file}: lacks the model's classes {missing[:5] if names else '(unnamed)'}; it has"
                f" {list(by_name)[:10]}; give the annotations of the data that the model was trained for"
            )
        return [by_name[name] for name in names]

    def image_id(self, path: Path) -> Any:
        """The id of an image, or the next number."""
        if self._file is None:
            self.next_id += 1
            return self.next_id - 1
        candidates = self._by_name.get(path.name, [])
        if len(candidates) > 1:
            tail = [entry for entry in candidates if f"/{path.resolve().as_posix()}".endswith(f"/{entry[0]}")]
            candidates = tail if len(tail) == 1 else candidates
        if len(candidates) != 1:
            count = "no image" if not candidates else f"{len(candidates)} images"
            raise InputError(f"{path}: {self._file} lists {count} of this name; one is needed to take its id")
        return candidates[0][1]

    def category_id(self, predicted: int) -> Any:
        """The id of a class 0..K-1."""
        if not self.categories:
            return predicted
        if predicted >= len(self.categories):
            raise InputError(
                f"the model predicts class {predicted}, but only {len(self.categories)} class names are"
                " known; set DATASETS.TEST to the data set that it was trained for"
            )
        return self.categories[predicted]["id"]


class PredictionFiles:
    """Predicts on files, writes what it drew at once and the results in COCO's format on `save`."""

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
            predict: BGR image -> `{"instances": Instances}`, such as a `DefaultPredictor`.
            metadata: names and colours for drawing.
            folder: of all output; it exists.
            ids: of images and categories.
            confidence_threshold: detections below it are neither drawn nor written.
        """
        self._predict = predict
        self._metadata = metadata
        self._folder = folder
        self._ids = ids
        self._threshold = confidence_threshold
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def process(self, path: Path, target: Path) -> None:
        """Predict on one image or video and draw it to `target`; InputError if it cannot be read."""
        if _is_video(path):
            self._process_video(path, target)
        else:
            self._process_image(path, target)

    def save(self) -> None:
        """Write the results of all that was processed, and the list of images that they refer to."""
        images = {"info": {"description": "images of " + RESULTS_FILE}, "images": self.images}
        write_json(self._folder / IMAGES_FILE, {**images, "categories": self._ids.categories})
        write_json(self._folder / RESULTS_FILE, self.results)

    def _process_image(self, path: Path, target: Path) -> None:
        image = read_image(path, format="BGR")
        image_id = self._ids.image_id(path)
        instances = self._detect(image)
        drawn = Visualizer(image[:, :, ::-1], self._metadata).draw_instance_predictions(instances)
        drawn.save(str(target))
        self._keep(image, instances, image_id=image_id, file_name=str(path))

    def _process_video(self, path: Path, target: Path) -> None:
        drawer = VideoVisualizer(self._metadata)
        with VideoReader(path) as video, VideoWriter(target, video.frames_per_second) as drawn:
            frames = tqdm(video, desc=path.name, total=video.num_frames or None, unit="frame", disable=None)
            for number, frame in enumerate(frames):
                image_id = self._ids.image_id(path)
                instances = self._detect(frame)
                drawn.write(drawer.draw_instance_predictions(frame[:, :, ::-1], instances).get_image())
                self._keep(frame, instances, image_id=image_id, file_name=str(path), frame=number)

    def _detect(self, image: np.ndarray) -> Instances:
        output = self._predict(image)
        if "instances" not in output:
            raise InputError(
                f"the model gives {', '.join(output)}, but objects are what is drawn and written; use a model"
                " that detects (MODEL.META_ARCHITECTURE GeneralizedRCNN)"
            )
        instances = output["instances"]
        return instances[instances.scores >= self._threshold].to("cpu")

    def _keep(self, image: np.ndarray, instances: Instances, **record: Any) -> None:
        height, width = image.shape[:2]
        record = {"id": record.pop("image_id"), **record, "height": height, "width": width}
        self.images.append(record)
        for result in instances_to_coco_json(instances, record["id"]):
            self.results.append({**result, "category_id": self._ids.category_id(result["category_id"])})
