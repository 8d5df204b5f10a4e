"""Everything between a merged config and a model: checks, data sets, classes, device, seeds, log."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from panomask import distributed
from panomask.addresses import local_path
from panomask.atomic_file import write_atomically
from panomask.config import CfgNode, check_supported
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.coco import read_coco_categories
from panomask.data.datasets.panoptic_categories import ensure_panoptic_metadata
from panomask.data.label_check import check_label_folder
from panomask.engine.environment import collect_env_info, seed_all_rng, summarize_environment
from panomask.engine.keypoint_setup import check_oks_sigmas, describe_mirroring, match_keypoints
from panomask.engine.logger import setup_logger
from panomask.engine.registration import register_datasets
from panomask.engine.semantic_setup import check_truth, match_stuff_classes
from panomask.errors import InputError
from panomask.layers import resolve_device
from panomask.registry import kind_of

logger = logging.getLogger(__name__)

_ROI_CLASSES_KEY = "MODEL.ROI_HEADS.NUM_CLASSES"
NUM_CLASSES_KEYS = {
    "FCOS": "MODEL.FCOS.NUM_CLASSES",
    "GeneralizedRCNN": _ROI_CLASSES_KEY,
    "PanopticFPN": _ROI_CLASSES_KEY,
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
}
"""MODEL.META_ARCHITECTURE -> the key that holds its number of thing classes. Projects add theirs."""

_held_back: dict[Path, str] = {}
"""A resumed run's config.yaml -> its new content, to be written when the checkpoint has been found to fit."""


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Prepare a run, in every process, before a model is built. Changes `cfg` in place, frozen or not.

    Checks the config, registers DATASETS.REGISTER, sets the numbers of classes and of keypoints from the data
    and MODEL.DEVICE to a device that exists, opens OUTPUT_DIR/log.txt, writes OUTPUT_DIR/config.yaml, seeds
    all generators. On `resume` the old config.yaml stays until `write_held_back_config`.

    Args:
        cfg: merged from file and command line.
        args: of `default_argument_parser`; only `eval_only` and `resume` matter.

    Raises:
        InputError: a key that is not supported, a count that disagrees with the data, a missing file,
            an OUTPUT_DIR that cannot be made; nothing has been written then.
    """
    eval_only = bool(getattr(args, "eval_only", False))
    rank = distributed.get_rank()
    setup_logger(distributed_rank=rank)
    was_frozen = cfg.is_frozen()
    cfg.defrost()
    check_supported(cfg)
    put_names_in_tuples(cfg)
    register_datasets(cfg)
    names = [*([] if eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST]
    check_truth(cfg, eval_only=eval_only)
    for name in sorted({*names} & {*cfg.DATASETS.REGISTER}):
        check_label_folder(name)
    notes = match_num_classes(cfg, names) + match_stuff_classes(cfg, names) + match_keypoints(cfg, names)
    notes += [] if eval_only else describe_mirroring(cfg)
    check_oks_sigmas(cfg)
    _check_proposal_files(cfg, eval_only=eval_only)
    _make_output_dir(cfg.OUTPUT_DIR)
    for name in ("panomask", "fvcore"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    device = _device(cfg.MODEL.DEVICE)
    _log_run(cfg, notes)
    if distributed.is_main_process():
        _save_config(cfg, keep_old=eval_only, hold_back=bool(getattr(args, "resume", False)))
    cfg.MODEL.DEVICE = str(device)  # not in the file, which may be used on another machine
    if was_frozen:
        cfg.freeze()
    if device.type == "cuda" and device.index is not None:
        # Generators, memory statistics and pinned memory are those of the current device.
        torch.cuda.set_device(device)
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
    if not eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)


def _log_run(cfg: CfgNode, notes: Sequence[str]) -> None:
    """What runs here, in a few lines; the long version goes to the log file alone."""
    world_size = distributed.get_world_size()
    processes = f", {world_size} processes" if world_size > 1 else ""
    logger.info(f"{summarize_environment()}{processes}")
    logger.info(f"Command: {shlex.join(sys.argv)}")
    for note in notes:
        logger.info(note)
    logger.debug(f"Environment:\n{collect_env_info()}")
    logger.debug(f"Config:\n{cfg.dump()}")


def _make_output_dir(output_dir: str) -> None:
    try:
        os.makedirs(output_dir, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"OUTPUT_DIR {output_dir!r} cannot be made a folder ({error.strerror}); choose another"
        ) from error


def _save_config(cfg: CfgNode, *, keep_old: bool, hold_back: bool) -> None:
    """Write OUTPUT_DIR/config.yaml; an evaluation keeps the old one, a resumed run holds the new one back."""
    path = Path(cfg.OUTPUT_DIR) / "config.yaml"
    if path.exists() and keep_old:
        return
    if path.exists() and hold_back:
        _held_back[path] = cfg.dump()
        return
    _write_config(path, cfg.dump())


def write_held_back_config(output_dir: str) -> None:
    """Replace config.yaml by that of the resumed run, once its checkpoint is loaded."""
    path = Path(output_dir) / "config.yaml"
    if path in _held_back:
        _write_config(path, _held_back.pop(path))


def _write_config(path: Path, text: str) -> None:
    with write_atomically(path, "w") as file:
        file.write(text)
    logger.info(f"The config with all defaults is in {path}")


def _device(name: str) -> torch.device:
    """The device that MODEL.DEVICE stands for on this machine, in this process."""
    device = resolve_device(name)
    num_local = distributed.get_local_size()
    if device.type == "cuda" and num_local > 1:
        num_gpus = torch.cuda.device_count()
        if device.index is not None:
            raise InputError(
                f"MODEL.DEVICE {name} names one GPU for {num_local} processes; set MODEL.DEVICE cuda"
            )
        if num_local > num_gpus:
            raise InputError(
                f"--num-gpus {num_local}: this machine has {num_gpus}; ask for at most that, "
                "or set MODEL.DEVICE cpu"
            )
    return device


def put_names_in_tuples(cfg: CfgNode) -> None:
    """Make a single name in DATASETS.TRAIN or DATASETS.TEST a tuple of one, in place; code may assign it.

    The same for the files in DATASETS.PROPOSAL_FILES_TRAIN and _TEST.
    """
    for key in ("TRAIN", "TEST", "PROPOSAL_FILES_TRAIN", "PROPOSAL_FILES_TEST"):
        if isinstance(cfg.DATASETS[key], str):
            cfg.DATASETS[key] = (cfg.DATASETS[key],)


def _check_proposal_files(cfg: CfgNode, *, eval_only: bool) -> None:
    """Raise InputError unless the files of proposals that a run will read are here, or can be downloaded.

    They are read when a loader is built: those of DATASETS.TEST only after the training.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return
    datasets = cfg.DATASETS
    used = [] if eval_only or not datasets.TRAIN else list(datasets.PROPOSAL_FILES_TRAIN)
    used += datasets.PROPOSAL_FILES_TEST if datasets.TEST else ()
    for file in used:
        if not os.path.isfile(local_path(file)):
            raise InputError(
                f"{file}: no such file of proposals; name others in DATASETS.PROPOSAL_FILES_TRAIN and _TEST,"
                " such as the box_proposals.pkl that the evaluation of an RPN writes"
            )


def match_num_classes(cfg: CfgNode, names: Sequence[str]) -> list[str]:
    """Make the model's number of classes that of the data, in place; refuse a different explicit one.

    Args:
        cfg: not frozen. Its META_ARCHITECTURE decides which keys are meant (`num_classes_keys`).
        names: registered data sets.

    Returns:
        Lines for the log.

    Raises:
        InputError: data sets disagree, or the config states another number than they have.
    """
    keys = num_classes_keys(cfg)
    classes = {name: found for name in names if (found := thing_classes_of(name)) is not None}
    if not keys or not classes:
        return []
    first, class_names = next(iter(classes.items()))
    for name, other in classes.items():
        if len(other) != len(class_names):
            raise InputError(
                f"data set {first} has {len(class_names)} classes and data set {name} has {len(other)}; "
                "DATASETS.TRAIN and DATASETS.TEST must have the same classes"
            )
    notes = [
        f"Classes of {name} have other names than those of {first}: scores of single classes may mean little"
        for name, other in classes.items()
        if other != class_names
    ]
    counted = []
    for key in keys:
        group, _, field = key.rpartition(".")
        node: Any = cfg
        for part in group.split("."):
            node = node[part]
        stated = node[field]
        if cfg.is_explicit(key) and stated != len(class_names):
            raise InputError(
                f"{key} is {stated}, but data set {first} has {len(class_names)} classes{_source_of(first)}; "
                f"set {key} {len(class_names)} or leave it out"
            )
        if not cfg.is_explicit(key):
            setattr(node, field, len(class_names))
            counted.append(f"{key} is {len(class_names)}: the classes of data set {first}")
    return counted + notes


def num_classes_keys(cfg: CfgNode) -> list[str]:
    """The keys that hold the number of thing classes of the config's model; none where it has no such key.

    A one-stage detector with masks or keypoints has it twice.
    """
    model = kind_of(cfg.MODEL.META_ARCHITECTURE)
    keys = [NUM_CLASSES_KEYS[model]] if model in NUM_CLASSES_KEYS else []
    if model in ("FCOS", "RetinaNet") and (cfg.MODEL.MASK_ON or cfg.MODEL.KEYPOINT_ON):
        keys.append(_ROI_CLASSES_KEY)
    return keys


def thing_classes_of(name: str) -> list[str] | None:
    """Class names of a registered data set, without loading it; None where nothing says them.

    Raises:
        InputError: an unknown name, or an annotation file that cannot be read.
    """
    if name not in DatasetCatalog:
        DatasetCatalog.get(name)  # raises, naming the nearest known names
    ensure_panoptic_metadata(name)
    metadata = MetadataCatalog.get(name)
    classes = metadata.get("thing_classes")
    if classes is not None:
        return list(classes)
    json_file = metadata.get("json_file")
    if json_file is None:
        return None
    return [category["name"] for category in read_coco_categories(json_file)]


def _source_of(name: str) -> str:
    json_file = MetadataCatalog.get(name).get("json_file")
    return f" ({json_file})" if json_file else ""


def refuse_overwriting(cfg: CfgNode) -> None:
    """Raise InputError if OUTPUT_DIR holds a training run, which a new one would mix with. Collective."""
    folder = Path(cfg.OUTPUT_DIR)
    found = [name for name in ("last_checkpoint", "metrics.json") if (folder / name).is_file()]
    distributed.synchronize()  # nobody may write before everybody has looked
    if found:
        raise InputError(
            f"{os.path.join(cfg.OUTPUT_DIR, found[0])}: OUTPUT_DIR holds a training run already; "
            "pass --resume to continue it, or choose another OUTPUT_DIR, or delete the folder"
        )
