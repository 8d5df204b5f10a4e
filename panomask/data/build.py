"""Loaders: data sets by name -> filtered dicts -> sampler -> workers -> batches of the mapper's dicts."""

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler

from panomask import distributed
from panomask.config import CfgNode, configurable
from panomask.data.batching import (
    InputErrorLoader,
    MapDataset,
    Orientation,
    PositionedBatchSampler,
    ResumableLoader,
    ToIterableDataset,
)
from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.class_histogram import print_instances_class_histogram, print_stuff_class_histogram
from panomask.data.dataset_mapper import DatasetMapper
from panomask.data.detection_utils import check_metadata_consistency
from panomask.data.proposals import load_proposals_into_dataset
from panomask.data.samplers import (
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from panomask.data.serialized_list import DatasetFromList
from panomask.errors import InputError, nearest_names
from panomask.registry import kind_of

logger = logging.getLogger(__name__)

DatasetDicts = list[dict[str, Any]]


def filter_images_with_only_crowd_annotations(dataset_dicts: DatasetDicts) -> DatasetDicts:
    """Drop images without an object that is not a crowd."""
    kept = [
        item for item in dataset_dicts if any(anno.get("iscrowd", 0) == 0 for anno in item["annotations"])
    ]
    logger.info("%d of %d images have objects to train on", len(kept), len(dataset_dicts))
    return kept


def filter_images_with_few_keypoints(
    dataset_dicts: DatasetDicts, min_keypoints_per_image: int
) -> DatasetDicts:
    """Drop images with fewer labelled keypoints, over all their objects, than `min_keypoints_per_image`."""

    def count(item: dict[str, Any]) -> int:
        labelled = (
            np.array(anno["keypoints"][2::3]) > 0 for anno in item["annotations"] if "keypoints" in anno
        )
        return sum(int(visible.sum()) for visible in labelled)

    kept = [item for item in dataset_dicts if count(item) >= min_keypoints_per_image]
    logger.info(
        "%d of %d images have at least %d labelled keypoints",
        len(kept),
        len(dataset_dicts),
        min_keypoints_per_image,
    )
    return kept


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> Any:
    """Load registered data sets and join them to one list of dataset dicts.

    Args:
        names: one or several.
        filter_empty: drop images without objects to train on (for training).
        min_keypoints: drop images with fewer labelled keypoints; 0 keeps all.
        proposal_files: files of proposals, one for each name; None: no proposals are read.
        check_consistency: check that all have the same classes, and log a table of them.

    Returns:
        list[dict]; or a torch `Dataset` as it is, if the names are registered with such.
    """
    names = _as_list(names)
    if not names:
        raise InputError(
            "no data set is named: set DATASETS.TRAIN (for training) or DATASETS.TEST (for testing)"
        )
    parts = [DatasetCatalog.get(name) for name in names]
    if proposal_files is not None:
        _add_proposals(names, parts, proposal_files)
    if isinstance(parts[0], Dataset):
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)
    for name, part in zip(names, parts, strict=True):
        if len(part) == 0:
            raise InputError(f"data set {_describe(name)} has no images; check its annotation file")

    dataset_dicts = [item for part in parts for item in part]
    has_annotations = all("annotations" in item for item in dataset_dicts)
    num_loaded = len(dataset_dicts)
    if has_annotations and filter_empty:
        dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
    if has_annotations and min_keypoints > 0:
        dataset_dicts = filter_images_with_few_keypoints(dataset_dicts, min_keypoints)
    if not dataset_dicts:
        raise InputError(
            f"none of the {num_loaded} images of {', '.join(map(_describe, names))} has an object that is no"
            f" crowd{f' and {min_keypoints} labelled keypoints' if min_keypoints else ''}; check the"
            " annotations, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on such images too"
        )
    if has_annotations and check_consistency:
        check_metadata_consistency("thing_classes", names)
        class_names = MetadataCatalog.get(names[0]).get("thing_classes")
        if class_names:
            print_instances_class_histogram(dataset_dicts, class_names)
    stuff_classes = MetadataCatalog.get(names[0]).get("stuff_classes")
    if check_consistency and stuff_classes:
        print_stuff_class_histogram(dataset_dicts, stuff_classes)
    return dataset_dicts


def _add_proposals(names: list[str], parts: list[Any], files: Sequence[str]) -> None:
    """Read each data set's file of proposals into its dicts, in place."""
    if len(files) != len(names):
        raise InputError(
            f"{len(files)} files of proposals (DATASETS.PROPOSAL_FILES_*) for {len(names)} data sets,"
            f" {', '.join(names)}: with MODEL.LOAD_PROPOSALS each needs one"
        )
    for name, part, file in zip(names, parts, files, strict=True):
        if isinstance(part, Dataset):
            raise InputError(
                f"data set {name!r} is a torch Dataset, which must bring its proposals itself: set"
                " MODEL.LOAD_PROPOSALS False"
            )
        load_proposals_into_dataset(part, file)


def _describe(name: str) -> str:
    """The data set's name, with its annotation file where there is one."""
    json_file = MetadataCatalog.get(name).get("json_file")
    return f"{name} ({json_file})" if json_file else name


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """The batch as the list of its samples: images of different sizes cannot be stacked."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Prepare a loader's worker: one thread, and all generators seeded by torch's seed for this worker."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    seed = torch.initial_seed() % 2**31
    random.seed(seed)
    np.random.seed(seed)


def _worker_options(num_workers: int, **options: Any) -> dict[str, Any]:
    """Keywords for a DataLoader; `options` apply only where there are workers."""
    if num_workers == 0:
        return {"num_workers": 0}
    return {"num_workers": num_workers, "worker_init_fn": worker_init_reset_seed, **options}


def _batch_size_of_rank(total_batch_size: int) -> int:
    world_size = distributed.get_world_size()
    if total_batch_size <= 0 or total_batch_size % world_size:
        raise InputError(
            f"the total batch size {total_batch_size} (SOLVER.IMS_PER_BATCH) must be a positive multiple"
            f" of the number of processes, {world_size}"
        )
    return total_batch_size // world_size


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler[int] | None,
    total_batch_size: int | None,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int = 2,
    persistent_workers: bool = False,
    pin_memory: bool | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> ResumableLoader:
    """Batches of this rank out of a mapped dataset.

    Args:
        dataset: map-style, giving samples; a `MapDataset` if images are to be grouped or may be refused.
        sampler: this rank's indices; None where the dataset is a `ToIterableDataset`, which has one.
        total_batch_size: samples over all ranks; or None and `single_gpu_batch_size`, those of one rank.
        aspect_ratio_grouping: a batch holds images wider than high, or others, never both. The dicts of the
            dataset (before mapping) must have width and height.
        num_workers: processes that read and map; 0: this one.
        collate_fn: list of samples -> batch; the list itself by default.
        drop_last: of a finite sampler, drop the last batch if it is not full.
        prefetch_factor, persistent_workers: as torch's DataLoader.
        pin_memory: None: if there is a GPU.
        seed: what the augmentations depend on; None: the sampler's seed, else a random one, equal on all
            ranks.
        kwargs: further ones of torch's DataLoader.
    """
    if (total_batch_size is None) == (single_gpu_batch_size is None):
        raise ValueError(
            "give total_batch_size or single_gpu_batch_size (then total_batch_size=None), not both"
        )
    batch_size = single_gpu_batch_size or _batch_size_of_rank(total_batch_size or 0)
    dataset, sampler = _by_index(dataset, sampler)
    source = dataset.source if isinstance(dataset, MapDataset) else dataset
    batch_sampler = PositionedBatchSampler(
        sampler,
        batch_size,
        group_of=Orientation(source) if aspect_ratio_grouping else None,
        drop_last=drop_last,
    )
    seed = getattr(sampler, "seed", None) if seed is None else seed
    options = {
        "pin_memory": torch.cuda.is_available() if pin_memory is None else pin_memory,
        "collate_fn": collate_fn or trivial_batch_collator,
        **_worker_options(
            num_workers, prefetch_factor=prefetch_factor, persistent_workers=persistent_workers
        ),
        **kwargs,
    }
    return ResumableLoader(
        dataset, batch_sampler, seed=distributed.shared_random_seed() if seed is None else seed, **options
    )


def _by_index(dataset: Any, sampler: Any) -> tuple[Any, Any]:
    """Dataset and sampler; a `ToIterableDataset` is taken apart. Loaders go by index, so that they resume."""
    if isinstance(dataset, ToIterableDataset):
        if sampler is not None:
            raise InputError("the dataset is a ToIterableDataset, which has a sampler: give sampler=None")
        return dataset.dataset, dataset.sampler
    if isinstance(dataset, IterableDataset):
        raise InputError(
            f"the dataset is a stream ({type(dataset).__name__}), which cannot be resumed: give one with"
            " __getitem__ and __len__, or batch the stream by torch's DataLoader"
        )
    return dataset, sampler


def _build_train_sampler(cfg: CfgNode, dataset: Any) -> Sampler[int]:
    """The sampler that DATALOADER.SAMPLER_TRAIN names, seeded by SEED unless that is negative."""
    name, seed = cfg.DATALOADER.SAMPLER_TRAIN, cfg.SEED if cfg.SEED >= 0 else None
    logger.info("Training sampler: %s", name)
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    known = ["TrainingSampler", "RepeatFactorTrainingSampler"]
    near = nearest_names(name, known)
    hint = f" did you mean {near[0]}?" if near else ""
    raise InputError(f"DATALOADER.SAMPLER_TRAIN is {name!r};{hint} allowed: {', '.join(known)}")


def _proposal_files_from_config(cfg: CfgNode, names: str | Sequence[str], is_train: bool) -> list[str] | None:
    """The files of proposals that belong to `names`, which the config lists; None without LOAD_PROPOSALS."""
    datasets = cfg.DATASETS
    if not cfg.MODEL.LOAD_PROPOSALS:
        return None
    known = _as_list(datasets.TRAIN if is_train else datasets.TEST)
    files = _as_list(datasets.PROPOSAL_FILES_TRAIN if is_train else datasets.PROPOSAL_FILES_TEST)
    file_of = dict(zip(known, files, strict=False))
    without = [name for name in _as_list(names) if name not in file_of]
    if without:
        split = "TRAIN" if is_train else "TEST"
        raise InputError(
            f"data set {without[0]!r} has no file in DATASETS.PROPOSAL_FILES_{split}: MODEL.LOAD_PROPOSALS"
            f" needs one for each data set of DATASETS.{split}, in the same order"
        )
    return [file_of[name] for name in _as_list(names)]


def _as_list(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _train_loader_from_config(
    cfg: CfgNode, mapper: Any = None, *, dataset: Any = None, sampler: Any = None
) -> dict[str, Any]:
    if dataset is None:
        min_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            # What a model without instances trains on is in images without objects too.
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            and kind_of(cfg.MODEL.META_ARCHITECTURE) != "SemanticSegmentor",
            min_keypoints=min_keypoints,
            proposal_files=_proposal_files_from_config(cfg, cfg.DATASETS.TRAIN, is_train=True),
        )
    return {
        "dataset": dataset,
        "sampler": _build_train_sampler(cfg, dataset) if sampler is None else sampler,
        "mapper": DatasetMapper(cfg, True) if mapper is None else mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "seed": cfg.SEED if cfg.SEED >= 0 else None,
    }


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: Any,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Sampler[int] | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> ResumableLoader:
    """The endless training loader.

    Called with a config, `(cfg, *, mapper=, dataset=, sampler=)`, or with keywords:

    Args:
        dataset: list of dataset dicts (then held once in memory for all workers), or a map-style dataset.
        mapper: dict -> sample, or None (refuse the image: another one takes its place); None as the mapper
            itself: the dataset gives samples already.
        sampler: this rank's indices; `TrainingSampler` by default.
        total_batch_size: samples over all ranks.
        aspect_ratio_grouping, num_workers, collate_fn, kwargs: see `build_batch_data_loader`.

    Returns:
        A loader of batches (lists of samples) of this rank. `state_dict(batches)` and `load_state_dict` take
        it up again where a training stopped.
    """
    dataset, sampler = _by_index(dataset, sampler)
    if len(dataset) == 0:
        raise InputError("no image is left to train on: check DATASETS.TRAIN and its annotation files")
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return build_batch_data_loader(
        MapDataset(dataset, mapper or _identity),
        TrainingSampler(len(dataset), seed=kwargs.get("seed")) if sampler is None else sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(
    cfg: CfgNode, dataset_name: str | Sequence[str], mapper: Any = None
) -> dict[str, Any]:
    names = _as_list(dataset_name)
    files = _proposal_files_from_config(cfg, names, is_train=False)
    dataset = get_detection_dataset_dicts(names, filter_empty=False, proposal_files=files)
    return {
        "dataset": dataset,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": InferenceSampler(len(dataset)),
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: Any,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Sampler[int] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """The loader that gives every image once over all ranks, in order.

    Called with a config, `(cfg, dataset_name, mapper=None)`, or with keywords:

    Args:
        dataset: list of dataset dicts, or a map-style dataset.
        mapper: dict -> sample; None: the dataset gives samples already.
        sampler: this rank's indices; `InferenceSampler` by default.
        batch_size: samples of a batch of this rank.
        num_workers, collate_fn: see `build_batch_data_loader`.
    """
    dataset, sampler = _by_index(dataset, sampler)
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return InputErrorLoader(
        MapDataset(dataset, mapper or _identity),
        sampler=InferenceSampler(len(dataset)) if sampler is None else sampler,
        batch_size=batch_size,
        drop_last=False,
        collate_fn=collate_fn or trivial_batch_collator,
        **_worker_options(num_workers),
    )


def _identity(sample: Any) -> Any:
    return sample
