"""Read a checkpoint file without running code from it, and make plain what is to be written."""

import argparse
import codecs
import json
import mmap
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from panomask.atomic_file import write_atomically
from panomask.errors import InputError
from panomask.safe_pickle import load_pickle

_WRAPPERS = ("model", "model_state", "state_dict", "blobs")
"""Under what files keep the state dict: Detectron2 and torchvision, pycls, most others, Detectron1."""

_EXPECTED = 'expected {"model": state dict} or a state dict'

_ENTRIES = "panomask"
"""Key of the metadata of a safetensors file under which entries besides the weights stand, as JSON."""

_MAX_NAME = 1000

_SHARED = 16
"""How often a file may use its bytes: as often as heads share their weights, not as often as it likes."""

_REAL_NUMBERS = re.compile(r"torch\.(bool|u?int(8|16|32|64)|b?float16|float(32|64)|float8_\w+)")
"""Types of tensors that can be copied into a weight."""

_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
"""The first instructions of what torch.save wrote until 1.5, and writes on demand."""

_PLAIN = (torch.Tensor, str, bytes, bool, int, float, complex, type(None), torch.Size, torch.dtype)


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a file of weights into `{"model": state dict, ...}`, tensors on the CPU.

    By the ending of the name: `.pkl` is a pickle of arrays (Detectron2's zoo, Caffe2, Detectron1),
    `.safetensors` what it says, everything else what torch.save wrote (read with `weights_only`). A bare
    state dict is put under "model"; names stay as they are in the file. No code of the file is run.

    Raises:
        InputError: no such file, an unknown format, a truncated, damaged or foreign file, no state dict
            inside, or a weight that is NaN; the message names the file and what was found.
    """
    file = Path(path)
    try:
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "no such file"
            raise InputError(
                f"{path}: {what}; give the path of a checkpoint file (.pth, .pkl or .safetensors)"
            )
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(len(_LEGACY_TORCH))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    if size == 0:
        raise InputError(f"{path}: the file is empty; give an intact checkpoint (.pth, .pkl or .safetensors)")
    if file.suffix == ".pkl" and start != _LEGACY_TORCH and not zipfile.is_zipfile(path):
        content = load_pickle(path)
    elif file.suffix == ".safetensors":
        content = _read_safetensors(path, size)
    else:
        content = _read_torch(path, size)
    return _as_checkpoint(path, content, size)


def _read_torch(path: str, size: int) -> Any:
    remedy = "give an intact .pth file or an earlier checkpoint of the same run"
    try:
        _refuse_claims(path)
        damaged = _find_damaged_entry(path, size)
        # DETR and its relatives keep their settings beside the weights; a Namespace has no code
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises anything from KeyError to RuntimeError on damaged files
        # What torch says speaks of its internals, and advises to switch the safe reader off.
        if foreign := re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path}: holds {foreign[1]}, which is not read since it could run code; "
                "save the state dict alone to a new file, where you trust this one"
            ) from error
        raise InputError(
            f"{path}: not a readable checkpoint (truncated, damaged or not written by torch.save; "
            f"{size} bytes); {remedy}"
        ) from error
    if damaged:
        raise InputError(f"{path}: damaged: its entry {damaged!r} does not fit its checksum; {remedy}")
    return content


def _read_safetensors(path: str, size: int) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, "pt") as file:
            extra = json.loads((file.metadata() or {}).get(_ENTRIES, "{}"))
        if not isinstance(extra, dict):
            raise ValueError(f"its {_ENTRIES!r} are no dict")
        return {**extra, "model": load_file(path)}
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file (truncated, damaged or of another format; "
            f"{size} bytes); give an intact file"
        ) from error


def write_weights(path: str, checkpoint: Mapping[str, Any]) -> None:
    """Write weights for others to use, whole or not at all.

    Args:
        path: ends in `.pth` (torch.save) or `.safetensors`.
        checkpoint: the state dict as "model"; other entries are plain values that JSON can hold, too.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    file = Path(path)
    if file.suffix not in (".pth", ".safetensors"):
        raise InputError(f"{path}: weights are written as .pth or .safetensors; give one of these endings")
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in checkpoint["model"].items()}
    extra = {key: value for key, value in checkpoint.items() if key != "model"}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as opened:
            if file.suffix == ".pth":
                torch.save(to_plain({"model": OrderedDict(weights), **extra}), opened)
            else:
                opened.write(save(weights, metadata={"format": "pt", _ENTRIES: json.dumps(extra)}))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _refuse_claims(path: str) -> None:
    """Raise InputError for the calls by which torch's safe reader lets a small file claim all memory.

    A bytearray of any length, which torch.save never writes for what checkpoints hold; and bytes encoded as
    bytes (hexadecimal, say), each time twice as long: torch.save encodes text by latin-1 alone. They are
    looked for in the whole file, 0.1 s for 400 MB.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = [
            f"{module.decode()}.bytearray"
            for module in (b"__builtin__", b"builtins")
            if content.find(b"c" + module + b"\nbytearray\n") >= 0
        ]
        if content.find(b"c_codecs\nencode\n") >= 0:
            texts = (content[m.end() : m.end() + m[1][0]] for m in _SHORT_TEXT.finditer(content))
            found += [f"bytes in {text.decode()!r}" for text in texts if _encodes_bytes(text)]
    if found:
        raise InputError(
            f"{path}: holds {found[0]}, which is not read since it could claim any "
            "amount of memory; save the state dict alone to a new file, where you trust this one"
        )


_SHORT_TEXT = re.compile(rb"X([\x02-\x20])\0\0\0", re.DOTALL)
"""How a pickle begins a text of 2 to 32 bytes, such as the name of an encoding."""


def _encodes_bytes(name: bytes) -> bool:
    """Whether this is the name of an encoding that does not encode text."""
    try:
        codecs.lookup(name.decode("ascii"))
    except (LookupError, ValueError):
        return False
    try:
        "".encode(name.decode("ascii"))
    except LookupError:
        return True
    return False


def _find_damaged_entry(path: str, size: int) -> str | None:
    """Name of the first entry of a zip file whose bytes do not fit its CRC-32; None for other files.

    A compressed file, which may unpack to any size, is refused: torch.save does not compress.

    `torch.load` does not look at the checksums: a flipped byte in a weight would go unnoticed. Measured, from
    the page cache: 0.01 s for 48 MB, 0.07 s for 400 MB (torch.load: 0.01 s and 0.18 s). A checksum of 0 was
    not computed (`torch.serialization.set_crc32_options(False)`).
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise InputError(
                f"{path}: holds a TorchScript model, which is a program; save its state dict with torch.save"
            )
        claimed = sum(entry.file_size for entry in entries)
        if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise InputError(
                f"{path}: a compressed file that would unpack to {claimed} bytes from {size}; "
                "torch.save writes none, give a file that it wrote"
            )
        for entry in entries:
            try:
                if entry.CRC:
                    _read_through(archive, entry)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
                return entry.filename
    return None


def _read_through(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Let zipfile compare the checksum, which it does at the end."""
    with archive.open(entry) as file:
        while file.read(1 << 20):
            pass


def _as_checkpoint(path: str, content: Any, size: int) -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint; {_EXPECTED}")
    wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
    checkpoint = {key: value for key, value in content.items() if key != wrapper} if wrapper else {}
    state = as_tensors(path, content[wrapper] if wrapper else content)
    if not state:
        raise InputError(f"{path}: the state dict is empty; give a checkpoint of a trained model")
    for key, value in state.items():
        _require_plain_weight(path, key, value, size)
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > _SHARED * size:
        raise InputError(
            f"{path}: its {len(state)} weights share their bytes: {claimed} of the {size} bytes of the file; "
            "save each once"
        )
    for key, value in state.items():
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            raise InputError(f"{path}: weight {key!r} holds NaN; give an earlier checkpoint of the run")
    checkpoint["model"] = _without_wrapper_prefix(state)
    return checkpoint


def as_tensors(path: str, weights: Mapping[str, Any]) -> OrderedDict[str, torch.Tensor]:
    """A state dict whose arrays became tensors.

    Raises:
        InputError: an entry that is neither; the message names it and `path`.
    """
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for key, value in weights.items():
        if key == "weight_order":  # a list in some files of Caffe2
            continue
        if not isinstance(key, str) or len(key) > _MAX_NAME:
            what = f"{len(key)} letters long" if isinstance(key, str) else f"a {type(key).__name__}"
            raise InputError(f"{path}: the name of a weight is {what}; {_EXPECTED}")
        is_array = isinstance(value, (np.ndarray, np.generic))
        if is_array and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: entry {key!r} is a {type(value).__name__}, not a tensor; {_EXPECTED}")
        state[key] = value
    return state


def _require_plain_weight(path: str, key: str, value: torch.Tensor, size: int) -> None:
    is_dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not is_dense or not _REAL_NUMBERS.fullmatch(str(value.dtype)):
        raise InputError(f"{path}: weight {key!r} is not a dense tensor of numbers; save it as one")
    if value.numel() * value.element_size() > size:
        raise InputError(
            f"{path}: weight {key!r} claims the shape {tuple(value.shape)}, more than the {size} bytes "
            "of the file; give a file that torch.save wrote"
        )


def _without_wrapper_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop the `module.` that (Distributed)DataParallel puts before every key."""
    if all(key.startswith("module.") for key in state):
        return OrderedDict((key.removeprefix("module."), value) for key, value in state.items())
    return state


def to_plain(value: Any, where: str = "checkpoint") -> Any:
    """A copy of nested containers with numpy values made plain, which `read_checkpoint` can read back.

    Raises:
        TypeError: a value that a safe reader would refuse; found when writing, not weeks later on resuming.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if type(value) is torch.nn.Parameter:
        return value.detach()
    if isinstance(value, dict):
        plain = ((to_plain(key, where), to_plain(item, f"{where}[{key!r}]")) for key, item in value.items())
        return OrderedDict(plain) if isinstance(value, OrderedDict) else dict(plain)
    if isinstance(value, (list, tuple)) and type(value) is not torch.Size:
        items = [to_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, set):
        return {to_plain(item, where) for item in value}
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(
        f"{where} is a {type(value).__name__}: checkpoints hold tensors, numbers, strings and containers"
    )
