"""Reader of PASCAL VOC's detection annotations (Everingham et al., IJCV 2010): one XML file an image.

Annotations/000005.xml   JPEGImages/000005.jpg   ImageSets/Main/trainval.txt (one image name a line)
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError, nearest_names
from panomask.structures import BoxMode
from panomask.xml_file import read_xml

__all__ = ["CLASS_NAMES", "load_voc_instances", "register_pascal_voc"]

# fmt: off
CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
"""VOC's 20 classes since 2007."""


def register_pascal_voc(
    name: str,
    dirname: str | Path,
    split: str,
    year: int,
    class_names: Sequence[str] = CLASS_NAMES,
) -> None:
    """Register a data set in VOC's layout under `name`; nothing is read before the set is first used.

    Args:
        dirname: the folder that holds Annotations/, JPEGImages/ and ImageSets/.
        split: the name of a list in ImageSets/Main, as "trainval".
        year: 2007 or 2012: by which year's rule AP is computed.
        class_names: in the order of the class numbers 0..K-1.
    """
    DatasetCatalog.register(name, partial(load_voc_instances, str(dirname), split, class_names))
    MetadataCatalog.get(name).set(
        thing_classes=list(class_names),
        dirname=str(dirname),
        year=year,
        split=split,
        evaluator_type="pascal_voc",
    )


def load_voc_instances(dirname: str, split: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Read VOC annotations into dataset dicts, in the order of the list; objects marked "difficult" are kept.

    Args:
        dirname, split: see `register_pascal_voc`.
        class_names: all that may occur.

    Returns:
        dicts with file_name, image_id (the image's name), height, width and annotations: category_id, bbox
        xyxy. VOC counts pixels from 1 and includes the last, so (xmin, ymin, xmax, ymax) is the box
        (xmin - 1, ymin - 1, xmax, ymax) in continuous coordinates.

    Raises:
        InputError: a missing or broken file, an unknown class, or a box that is none; with file and object.
    """
    root = Path(dirname)
    class_ids = {name: index for index, name in enumerate(class_names)}
    return [_read_image(root, name, class_ids) for name in _read_names(root, split)]


def _read_names(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        # Lists of one class have a second column, 1 or -1; the first is the name in all.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(
            f"{path}: file does not exist; it lists the images of split {split!r}, one name a line"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); a text file of image names is needed") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if any("\0" in name for name in names):
        raise InputError(f"{path}: is no text; a text file of image names is needed, one a line")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: lists {repeated[0]!r} more than once; each image may come once")
    return names


def _read_image(root: Path, name: str, class_ids: dict[str, int]) -> dict[str, Any]:
    path = root / "Annotations" / f"{name}.xml"
    tree = read_xml(path)
    height, width = (_number(tree, f"size/{side}", str(path)) for side in ("height", "width"))
    if not (height >= 1 and width >= 1):
        raise InputError(f"{path}: the image's size is {width} x {height}; both must be above 0")
    return {
        "file_name": str(root / "JPEGImages" / f"{name}.jpg"),
        "image_id": name,
        "height": int(height),
        "width": int(width),
        "annotations": [
            _read_object(entry, f"{path}: object number {position} (counted from 0)", class_ids)
            for position, entry in enumerate(tree.findall("object"))
        ],
    }


def _read_object(entry: Element, where: str, class_ids: dict[str, int]) -> dict[str, Any]:
    name = (entry.findtext("name") or "").strip()
    if name not in class_ids:
        near = nearest_names(name, class_ids)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(class_ids)}"
        raise InputError(f"{where}: class {name!r} is unknown; {hint}")
    x0, y0, x1, y1 = (_number(entry, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
    if x1 < x0 or y1 < y0:
        raise InputError(
            f"{where}: its box is xmin {x0:g}, ymin {y0:g}, xmax {x1:g}, ymax {y1:g}; max may not be below"
            " min"
        )
    return {
        "category_id": class_ids[name],
        "bbox": [x0 - 1.0, y0 - 1.0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
    }


def _number(element: Element, path: str, where: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: <{path.replace('/', '><')}> is {text!r:.80}; a number is needed")
    return value
