"""Writes the embedded data set `shapes` to disk, whole or not at all.

    shapes/v2/version.json
    shapes/v2/annotations/{instances,keypoints,panoptic}_{train,val}.json
    shapes/v2/{train,val}/000001.png ...
    shapes/v2/panoptic_{train,val}/000001.png ...

Pictures are PNG: lossless, so the pixels are the drawn ones on every machine, whatever its JPEG library.
"""

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from panomask.data.datasets.shapes_annotation import (
    instance_records,
    keypoint_categories,
    keypoint_records,
    panoptic_categories,
    panoptic_record,
    thing_categories,
)
from panomask.data.datasets.shapes_scene import draw_scene
from panomask.errors import InputError

VERSION = 2
"""Raise it whenever the generator draws or annotates anything differently: a new folder is made then."""
SPLITS = {"train": 800, "val": 100}
"""Images per split."""
_FIRST_IMAGE_ID = {"train": 1, "val": 100001}
_LEFTOVER_SECONDS = 3600.0  # a temporary folder this old is a leftover, wherever its process ran


def _write_png(path: Path, rgb: np.ndarray) -> None:
    done, data = cv2.imencode(".png", rgb[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 4])
    assert done, path
    path.write_bytes(data.tobytes())


def _write_json(path: Path, split: str, content: dict[str, Any]) -> None:
    info = {"description": f"panomask shapes, {split}", "version": str(VERSION)}
    path.write_text(json.dumps({"info": info, **content}, separators=(",", ":")), encoding="utf-8")


def _write_split(folder: Path, split: str, *, seed: int, num_images: int) -> None:
    """Pictures and annotation files of one split."""
    for name in ("annotations", split, f"panoptic_{split}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, instances, keypoints, panoptic = [], [], [], []
    for index in range(num_images):
        scene = draw_scene(seed, list(SPLITS).index(split), index)
        image_id = _FIRST_IMAGE_ID[split] + index
        file_name = f"{image_id:06d}.png"
        height, width = scene.stuff.shape
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        records = instance_records(scene, image_id)
        instances += records
        keypoints += keypoint_records(scene, records)
        segments, picture = panoptic_record(scene, image_id, file_name)
        panoptic.append(segments)
        _write_png(folder / split / file_name, scene.image)
        _write_png(folder / f"panoptic_{split}" / file_name, picture)

    files = {
        "instances": (thing_categories(), instances),
        "keypoints": (keypoint_categories(), keypoints),
        "panoptic": (panoptic_categories(), panoptic),
    }
    for kind, (categories, annotations) in files.items():
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write_json(folder / "annotations" / f"{kind}_{split}.json", split, content)


def write_shapes(folder: Path, *, seed: int = 0, num_images: dict[str, int] | None = None) -> None:
    """Write the data set as the new folder `folder`.

    It is written under a temporary name beside `folder` and renamed when complete: a process that is killed
    leaves no half of a data set, and of several processes that write at once the first one wins and all end
    up with its files.

    Args:
        seed: another seed gives other pictures.
        num_images: split -> number of images, default SPLITS.

    Raises:
        InputError: `folder` cannot be written, or exists already and is not a complete data set.
    """
    name = f".{folder.name}-{_process_space()}-{os.getpid()}-{secrets.token_hex(4)}.partial"
    temporary = folder.parent / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary.mkdir()
        for split, count in (num_images or SPLITS).items():
            _write_split(temporary, split, seed=seed, num_images=count)
        version = {"version": VERSION, "seed": seed, "num_images": num_images or SPLITS}
        (temporary / "version.json").write_text(json.dumps(version) + "\n", encoding="utf-8")
        os.rename(temporary, folder)
    except OSError as error:
        if is_complete(folder):  # another process was faster
            return
        if folder.exists():
            raise InputError(
                f"{folder}: exists, but is no complete data set; remove it or name another"
            ) from error
        raise InputError(
            f"{folder}: the data set `shapes` cannot be written here ({error.strerror});"
            " let $PANOMASK_DATASETS name a folder that you may write to, with 50 MB free"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether `folder` was written to its end."""
    return (folder / "version.json").is_file()


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left beside `folder`.

    What a process of this host left goes when that process is gone. Of other hosts and containers, which may
    share the folder, no process can be looked up here: what they left goes when it is old.
    """
    for path in folder.parent.glob(f".{glob.escape(folder.name)}-*.partial"):
        try:
            is_old = time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS
        except FileNotFoundError:  # its process has just finished
            continue
        if is_old or _is_of_dead_process(path.name, folder.name):
            shutil.rmtree(path, ignore_errors=True)


def _is_of_dead_process(temporary_name: str, folder_name: str) -> bool:
    """Whether a temporary folder was surely made by a process that is gone; False where that is unknown."""
    space = _process_space()
    match = re.fullmatch(
        rf"\.{re.escape(folder_name)}-{space}-(\d+)-[0-9a-f]+\.partial", temporary_name, flags=re.ASCII
    )
    if not space or match is None:
        return False
    try:
        os.kill(int(match[1]), 0)  # signal 0 asks only
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # alive under another user; no process id at all
        return False
    return False


def _process_space() -> str:
    """Stands for the place in which a process id means one process: a container of a host since it started.

    Host names alone do not do: containers that share a folder may have the same one. "" where the system does
    not tell (other than Linux).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{socket.gethostname()} {boot} {namespace}".encode()).hexdigest()[:12]
