"""Panoptic quality of a model's predictions, or of prediction files, by panopticapi's definition."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.distributed import gather, get_world_size, is_main_process, synchronize
from panomask.errors import InputError
from panomask.evaluation.evaluator import DatasetEvaluator
from panomask.evaluation.panoptic_files import (
    CategoryIds,
    PanopticAnnotations,
    PanopticClasses,
    contiguous_to_dataset_id,
    read_panoptic_annotations,
)
from panomask.evaluation.panoptic_quality import FN, Segments, compare_segments, panoptic_metrics
from panomask.json_file import write_json
from panomask.panoptic_png import (
    MAX_SEGMENT_ID,
    decode_segment_ids,
    read_segment_ids,
    write_segment_ids,
)

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "panoptic_predictions.json"
PREDICTIONS_FOLDER = "panoptic_predictions"
_COUNTS_FROM = 2
"""The columns of an evaluator's rows: image, class, then the counts of `compare_segments`."""


class COCOPanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ over all classes, things, stuff, and of each class.

    A prediction is compared with the truth's PNG as it is processed, and only sums are kept: memory does not
    grow with the number of images. (Several processes keep the sums of each image, some 500 bytes, so that an
    image that two of them saw counts once; `save_predictions` keeps what its JSON file will list.)

    Evaluators of research code derive from this one: the names of its members beginning with an underscore
    are Detectron2's where it has them. A `process` of their own may put Detectron2's entries into
    `_predictions`: `image_id`, `png_string` and `segments_info` with the data set's category ids.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | PathLike[str] | None = None,
        *,
        save_predictions: bool = False,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set. Its truth are the metadata's `panoptic_json` and
                `panoptic_root`; without these, or where its `on_bad_annotation` is "drop", the
                `pan_seg_file_name` and `segments_info` of its dataset dicts.
            output_dir: where predictions are saved.
            save_predictions: write them in COCO's panoptic format: panoptic_predictions.json, and a PNG of
                each image in panoptic_predictions/. `tools/evaluate_json.py` scores them later.
        """
        if save_predictions and output_dir is None:
            raise InputError("save_predictions needs output_dir, the folder to write predictions to")
        self._dataset_name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = output_dir
        self._folder = Path(output_dir) if save_predictions and output_dir is not None else None
        COCOPanopticEvaluator.reset(self)  # that of a subclass may need what its constructor sets

    @cached_property
    def _thing_contiguous_id_to_dataset_id(self) -> dict[int, int]:
        return contiguous_to_dataset_id(self._metadata, "thing")

    @cached_property
    def _stuff_contiguous_id_to_dataset_id(self) -> dict[int, int]:
        return contiguous_to_dataset_id(self._metadata, "stuff")

    def _convert_category_id(self, segment_info: dict[str, Any]) -> dict[str, Any]:
        """Give a segment of a model's output the data set's category id and take out `isthing`, in place."""
        to_category = CategoryIds(
            self._metadata, self._thing_contiguous_id_to_dataset_id, self._stuff_contiguous_id_to_dataset_id
        )
        segment_info["category_id"] = to_category(segment_info)
        segment_info.pop("isthing", None)
        return segment_info

    @cached_property
    def _truth(self) -> PanopticAnnotations:
        """What the truth lists for each image, read by every process when it is first needed."""
        json_file, folder = self._metadata.get("panoptic_json"), self._metadata.get("panoptic_root")
        if None in (json_file, folder) or self._metadata.get("on_bad_annotation") == "drop":
            records = DatasetCatalog.get(self._dataset_name)
            return PanopticAnnotations.of_records(self._dataset_name, self._metadata, records)
        return read_panoptic_annotations(json_file, folder)

    def reset(self) -> None:
        self._sums: np.ndarray | None = None  # (K, 4)
        self._rows: list[np.ndarray] = []
        self._seen: np.ndarray | None = None  # (N,) bool
        self._predictions: list[dict[str, Any]] = []
        self._num_repeated = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare a batch's predictions with the truth.

        Args:
            inputs: dataset dicts with `image_id`.
            outputs: dicts whose `panoptic_seg` is (map, segments_info), see `panoptic_to_coco`; outputs
                without it are passed over.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "panoptic_seg" in output:
                self._process_image(record, *output["panoptic_seg"])

    def _process_image(self, record: Mapping[str, Any], predicted: torch.Tensor, info: Any) -> None:
        name = f"the prediction of {record.get('file_name', record.get('image_id'))}"
        try:
            ids, segments = panoptic_to_coco(
                predicted,
                info,
                self._metadata,
                to_category=lambda segment: self._convert_category_id(dict(segment))["category_id"],
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        image = self._count(record, ids, segments, name)
        if image is not None and self._folder is not None:
            self._save(self._folder, image, ids, segments)

    def _count(
        self, record: Mapping[str, Any], ids: np.ndarray, segments: list[dict[str, Any]], name: str
    ) -> int | None:
        """Add a prediction in COCO's format; the position of its image, None if that came before."""
        truth, image = self._truth, self._position(record)
        if self._seen is None:
            self._seen = np.zeros(len(truth), dtype=bool)
        if self._seen[image]:
            self._num_repeated += 1
            return None
        try:
            listed = _segments(segments, truth.classes)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        counts = compare_with_truth(truth, image, ids, listed, name)
        self._seen[image] = True
        if get_world_size() > 1:
            classes = np.flatnonzero(counts.any(axis=1))
            self._rows.append(np.column_stack([np.full(len(classes), image), classes, counts[classes]]))
        else:
            self._sums = counts if self._sums is None else self._sums + counts
        return image

    def _count_encoded(self) -> None:
        """Score the entries of `_predictions` that hold their map as a PNG, see the class."""
        encoded = [entry for entry in self._predictions if "png_string" in entry]
        self._predictions = [entry for entry in self._predictions if "png_string" not in entry]
        for entry in encoded:
            name = f"the prediction of image {entry['image_id']!r}"
            self._count(entry, decode_segment_ids(entry["png_string"]), entry["segments_info"], name)

    def _position(self, record: Mapping[str, Any]) -> int:
        image_id = record.get("image_id")
        position = self._truth.position(image_id)
        if position is None:
            raise InputError(
                f"{record.get('file_name')}: {self._truth.source} has no annotation of image {image_id!r};"
                " evaluate on the images of this data set, with their image_id in the dataset dicts"
            )
        return position

    def _save(self, folder: Path, image: int, ids: np.ndarray, segments: list[dict[str, Any]]) -> None:
        name = self._png_names[image]
        (folder / PREDICTIONS_FOLDER).mkdir(parents=True, exist_ok=True)
        write_segment_ids(folder / PREDICTIONS_FOLDER / name, ids)
        self._predictions.append(
            {"image_id": self._truth.image_ids[image], "file_name": name, "segments_info": segments}
        )

    @cached_property
    def _png_names(self) -> list[str]:
        """The truth's names without folders; numbered where two would be the same."""
        names = [Path(name).with_suffix(".png").name for name in self._truth.file_names]
        if len(set(names)) == len(names):
            return names
        return [f"{number:06d}_{name}" for number, name in enumerate(names)]

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Measure, over all processes.

        Images of the truth that nobody processed are reported, and all their segments count as missed.

        Returns:
            `{"panoptic_seg": metrics}` as `panoptic_metrics` gives them, on the main process; empty on the
            others, and where nothing was processed.
        """
        self._count_encoded()
        synchronize()
        shards = gather((self._sums, self._rows, self._seen, self._predictions, self._num_repeated), dst=0)
        if not is_main_process():
            return OrderedDict()
        seen = [shard[2] for shard in shards if shard[2] is not None]
        if not seen:
            logger.warning(
                "%s: no panoptic predictions were processed; nothing is scored", self._dataset_name
            )
            return OrderedDict()
        times_seen = np.sum(seen, axis=0)
        num_repeated = sum(shard[4] for shard in shards) + int((times_seen - 1).clip(0).sum())
        if num_repeated:
            logger.warning("%d images came more than once; their first is scored", num_repeated)
        counts = np.zeros((len(self._truth.classes), 4))
        for sums in (shard[0] for shard in shards if shard[0] is not None):
            counts += sums
        self._add_rows(counts, [np.concatenate(shard[1]) for shard in shards if shard[1]])
        self._add_missed(counts, np.flatnonzero(times_seen == 0))
        if self._folder is not None:
            self._write_json(self._folder, [entry for shard in shards for entry in shard[3]])
        is_thing = self._truth.classes.is_thing
        return OrderedDict(panoptic_seg=panoptic_metrics(counts, self._class_names(), is_thing))

    def _class_names(self) -> list[str]:
        """The metadata's where they name every category, as other evaluators of the set name its classes.

        COCO's file says "tree-merged" where Detectron2's metadata say "tree": one class, one row in a table.
        """
        classes = self._truth.classes
        names: dict[int, str] = {}
        for kind in ("stuff", "thing"):
            listed = self._metadata.get(f"{kind}_classes", ())
            numbers = self._metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
            names.update({id_: listed[k] for id_, k in numbers.items() if k < len(listed)})
        if not names.keys() >= set(classes.ids):
            return classes.names
        named = {id_: (names[id_], thing) for id_, thing in zip(classes.ids, classes.is_thing, strict=True)}
        return PanopticClasses(named).names

    def _add_rows(self, counts: np.ndarray, rows_of_processes: Sequence[np.ndarray]) -> None:
        """Add the counts of images, of each image those of the first process that saw it."""
        is_counted = np.zeros(len(self._truth), dtype=bool)
        for rows in rows_of_processes:
            images = rows[:, 0].astype(np.int64)
            is_new = ~is_counted[images]
            np.add.at(counts, rows[is_new, 1].astype(np.int64), rows[is_new, _COUNTS_FROM:])
            is_counted[images] = True

    def _add_missed(self, counts: np.ndarray, images: np.ndarray) -> None:
        if len(images):
            logger.warning(
                "%d of %d images of %s were not processed (the first: %s); their segments count as missed",
                *(len(images), len(self._truth), self._dataset_name, self._truth.image_ids[images[0]]),
            )
            counts[:, FN] += self._truth.num_segments(images)

    def _write_json(self, folder: Path, entries: Sequence[dict[str, Any]]) -> None:
        truth, classes = self._truth, self._truth.classes
        annotations = list({str(entry["image_id"]): entry for entry in entries}.values())
        path = folder / PREDICTIONS_FILE
        images = [
            {"id": id_, **({} if size is None else {"height": size[0], "width": size[1]})}
            for id_, size in zip(truth.image_ids, truth.sizes, strict=True)
        ]
        categories = [
            {"id": id_, "name": name, "isthing": int(is_thing)}
            for id_, name, is_thing in zip(classes.ids, classes.names, classes.is_thing, strict=True)
        ]
        write_json(path, {"images": images, "annotations": annotations, "categories": categories})
        logger.info("Panoptic predictions of %d images are in %s", len(annotations), path)


def panoptic_to_coco(
    panoptic_seg: torch.Tensor | np.ndarray,
    segments_info: Sequence[Mapping[str, Any]] | None,
    metadata: Any,
    *,
    to_category: Callable[[Mapping[str, Any]], int] | None = None,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A model's panoptic output of one image in COCO's format.

    Args:
        panoptic_seg: (H, W) integer ids of segments, 0 is void.
        segments_info: dicts with `id`, `category_id`, and `isthing` where the category is a contiguous one;
            without `isthing` it is the data set's own. None says that `panoptic_seg` holds
            category * label_divisor + number, and -1 for void.
        metadata: of the data set: its two maps from dataset ids, and `label_divisor`.
        to_category: a segment -> the data set's category id; by default by the two maps.

    Returns:
        (H, W) integer ids, and for each segment `id`, `category_id` (the data set's), and the `score` if the
        model gave one.
    """
    ids = panoptic_seg.cpu().numpy() if isinstance(panoptic_seg, torch.Tensor) else np.asarray(panoptic_seg)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise InputError(
            f"panoptic_seg is {ids.dtype} of shape {ids.shape}; a map (height, width) of whole numbers is"
            " needed"
        )
    if segments_info is None:
        segments_info = _decode_labels(ids, metadata)
        ids = ids + 1
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_SEGMENT_ID:
        raise InputError(
            f"panoptic_seg holds ids from {ids.min()} to {ids.max()}; 0 (void) to {MAX_SEGMENT_ID} are"
            " allowed"
        )
    to_category = to_category or CategoryIds(metadata)
    segments = []
    for segment in segments_info:
        entry: dict[str, Any] = {"id": int(segment["id"]), "category_id": to_category(segment)}
        if segment.get("score") is not None:
            entry["score"] = float(segment["score"])
        segments.append(entry)
    return ids, segments


def _decode_labels(labels: np.ndarray, metadata: Any) -> list[dict[str, Any]]:
    """Segments of a map of category * label_divisor + number; their ids are one more, for 0 is void."""
    divisor = metadata.get("label_divisor")
    if divisor is None:
        raise InputError(
            f"a prediction of {metadata.name!r} came without segments_info, and the set's metadata lack"
            " label_divisor, by which its map could be read; give either"
        )
    things = set(metadata.get("thing_dataset_id_to_contiguous_id", {}).values())
    if metadata.get("sem_seg_things_label") is not None:
        raise InputError(
            f"a prediction of {metadata.name!r} came without segments_info, but things and stuff are numbered"
            " apart in this data set: a number could be either; give segments_info with isthing"
        )
    found = [int(label) for label in np.unique(labels) if label != -1]
    return [
        {"id": label + 1, "category_id": label // divisor, "isthing": label // divisor in things}
        for label in found
    ]


def _segments(segments: Sequence[Mapping[str, Any]], classes: PanopticClasses) -> Segments:
    ids = np.array([segment["id"] for segment in segments], dtype=np.int64)
    if len(np.unique(ids)) < len(ids):
        raise InputError(f"segments_info lists an id twice, in {sorted(ids.tolist())[:12]}")
    of_class = np.array([classes.class_of(segment["category_id"]) for segment in segments], dtype=np.int64)
    return Segments(ids, of_class, np.zeros(len(ids), dtype=bool))


def compare_with_truth(
    truth: PanopticAnnotations, image: int, predicted_ids: np.ndarray, predicted: Segments, name: str
) -> np.ndarray:
    """(K, 4) counts of the `image`-th image of the truth, whose PNG is read; see `compare_segments`.

    `name` is what messages call the prediction.
    """
    path = truth.file_names[image]
    return compare_segments(
        read_segment_ids(path, truth.sizes[image]),
        truth.segments(image),
        predicted_ids,
        predicted,
        len(truth.classes),
        unlisted_is_void=truth.unlisted_is_void,
        names=(f"{path} (listed in {truth.source})", name),
    )


def evaluate_panoptic_json(
    truth_json: str | PathLike[str],
    truth_folder: str | PathLike[str],
    predictions_json: str | PathLike[str],
    predictions_folder: str | PathLike[str],
) -> dict[str, float]:
    """Score predictions in COCO's panoptic format, one image at a time.

    Args:
        truth_json, truth_folder: the annotation file and the folder of its PNG files.
        predictions_json, predictions_folder: likewise; categories and images are those of the truth.

    Returns:
        See `panoptic_metrics`.

    Raises:
        InputError: a file cannot be read, an image has no prediction, or JSON and PNG disagree.
    """
    truth = read_panoptic_annotations(truth_json, truth_folder)
    predictions = read_panoptic_annotations(predictions_json, predictions_folder, truth.classes)
    counts = np.zeros((len(truth.classes), 4))
    for image, image_id in enumerate(truth.image_ids):
        position = predictions.position(image_id)
        if position is None:
            raise InputError(
                f"{predictions_json}: no prediction of image {image_id!r}; every image of the truth needs an"
                " entry in 'annotations', with an empty segments_info where nothing was found"
            )
        path = predictions.file_names[position]
        predicted_ids = read_segment_ids(path)
        name = f"{path} (listed in {predictions_json})"
        counts += compare_with_truth(truth, image, predicted_ids, predictions.segments(position), name)
    return panoptic_metrics(counts, truth.classes.names, truth.classes.is_thing)
