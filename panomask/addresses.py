"""From an address (of weights, of proposals) to a file on this machine: a cache, filled over the network."""

import hashlib
import logging
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import PathHandler, file_lock
from iopath.common.file_io import PathManager as _PathManager

from panomask.atomic_file import write_atomically
from panomask.errors import InputError

logger = logging.getLogger(__name__)

MATCH_BY_SUFFIX = "?matching_heuristics=True"
"""At the end of an address: Detectron2's wish that names be matched by their endings (`foreign.py`)."""

DETECTRON2_PREFIX = "https://dl.fbaipublicfiles.com/detectron2/"
_DETECTRON1_PREFIX = "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/"

_CATALOG = {
    "MSRA/R-50": "MSRA/R-50.pkl",
    "MSRA/R-101": "MSRA/R-101.pkl",
    "FAIR/R-50-GN": "47261647/R-50-GN.pkl",
    "FAIR/R-101-GN": "47592356/R-101-GN.pkl",
    "FAIR/X-101-32x8d": "20171220/X-101-32x8d.pkl",
    "FAIR/X-101-64x4d": "FBResNeXt/X-101-64x4d.pkl",
    "FAIR/X-152-32x8d-IN5k": "25093814/X-152-32x8d-IN5k.pkl",
}
"""`catalog://ImageNetPretrained/NAME`: Detectron2's other way to name ImageNet weights."""

_TORCH_PREFIX = "https://download.pytorch.org/"
"""Here file names end in the first digits of their SHA-256."""

_WITHOUT_MEANING = {"download", "dl", "raw"}
"""What the query of an address may say without leading to another file."""

_TIMEOUT = 30.0  # seconds without a byte


def local_path(address: str) -> str:
    """The local file of an address; downloads it into the cache unless it is there.

    Args:
        address: a path, or an address that begins with `https://`, `http://`, `detectron2://` (Detectron2's
            zoo) or `catalog://ImageNetPretrained/`. Whoever has used Detectron2 has its files already: its
            cache ($FVCORE_CACHE, by default ~/.torch/iopath_cache) is looked into as well.

    Raises:
        InputError: an unknown kind of address, or no network; the message says which file to place where.
    """
    address = address.removesuffix(MATCH_BY_SUFFIX)
    if "://" not in address:
        return address
    found = PathManager.get_local_path(address)
    if "://" in found:  # no handler
        raise InputError(
            f"{address}: weights at {address.partition('://')[0]}:// addresses cannot be fetched; give a "
            "path or an address that begins with https://, detectron2:// or catalog://"
        )
    return found


def _fetch(address: str) -> str:
    url = _as_url(address)
    target = cached_path(url)
    try:
        for path in (target, *_older_caches(url)):
            if path.is_file():
                return str(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(target)):  # of several processes, one downloads
            if not target.is_file():
                _download(url, target)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}); "
            "set the environment variable PANOMASK_CACHE to a folder for downloaded weights"
        ) from error
    return str(target)


class _AddressHandler(PathHandler):
    """Lets the path manager, and research code by it, open addresses."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["https://", "http://", "detectron2://", "catalog://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return _fetch(path)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if not set(mode) <= set("rbt"):
            raise InputError(f"{path}: can only be read; write to a path on this machine")
        return open(_fetch(path), mode, buffering)


PathManager = _PathManager()
"""Opens what has a path or an address. Research code registers handlers for other storage here."""

PathManager.register_handler(_AddressHandler())


def cached_path(url: str) -> Path:
    """Where the file of a web address lies in the cache: `$PANOMASK_CACHE/HOST/PATH`.

    A query that may lead to another file (`?id=2`) puts its checksum before the ending of the name.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url}: not an address ({error}); correct it") from None
    names = [name for name in urllib.parse.unquote(parts.path).split("/") if name not in ("", ".", "..")]
    if not parts.hostname or not names or not url.isprintable() or "\0" in names[-1]:
        raise InputError(f"{url!r}: an address of a file is needed, such as https://HOST/FOLDER/model.pkl")
    meant = [part for part in parts.query.split("&") if part.split("=")[0] not in _WITHOUT_MEANING]
    if any(meant):
        name = Path(names[-1])
        names[-1] = f"{name.stem}.{hashlib.sha256('&'.join(meant).encode()).hexdigest()[:12]}{name.suffix}"
    return cache_folder().joinpath(parts.hostname, *names)


def cache_folder() -> Path:
    """`$PANOMASK_CACHE`, by default ~/.cache/panomask."""
    folder = Path(os.environ.get("PANOMASK_CACHE") or "~/.cache/panomask")
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise InputError(f"PANOMASK_CACHE is {folder}: {error} Set it to a folder") from None


def _as_url(address: str) -> str:
    scheme, _, name = address.partition("://")
    if scheme in ("https", "http"):
        return address
    if scheme == "detectron2":
        return DETECTRON2_PREFIX + name.lstrip("/")
    short = name.removeprefix("ImageNetPretrained/")
    if name == short or short not in _CATALOG:
        known = ", ".join(f"catalog://ImageNetPretrained/{key}" for key in _CATALOG)
        raise InputError(f"{address}: not in the catalog; known: {known}")
    return _DETECTRON1_PREFIX + _CATALOG[short]


def _older_caches(url: str) -> list[Path]:
    """Where fvcore and iopath, on behalf of Detectron2, would have put the file."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.lstrip("/")
    if parts.query:  # they would not tell it from another
        return []
    named = os.environ.get("FVCORE_CACHE")
    folders = [named] if named else ["~/.torch/iopath_cache", "~/.torch/fvcore_cache"]
    return [Path(folder).expanduser() / path for folder in folders]


def _download(url: str, target: Path) -> None:
    logger.info(f"Downloading {url} to {target}")
    remedy = f"download it elsewhere and place it at {target}"
    try:
        request = urllib.request.Request(_quoted(url), headers={"User-Agent": "panomask"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            _store(url, target, response)
    except InputError:
        raise
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):  # what file stores answer for what they do not hold
            remedy = f"correct the address, or {remedy}"
        raise InputError(
            f"{url}: the server answers {error.code} {_one_line(error.reason)}; {remedy}"
        ) from error
    except urllib.error.URLError as error:
        raise InputError(f"{url}: cannot be downloaded ({_one_line(error.reason)}); {remedy}") from error
    except (HTTPException, ConnectionError, TimeoutError, ssl.SSLError, ValueError) as error:
        what = _one_line(error) or type(error).__name__
        raise InputError(f"{url}: the download broke off ({what}); {remedy}") from error


def _quoted(url: str) -> str:
    """An address with `%20` for a blank, and so on."""
    parts = urllib.parse.urlsplit(url)
    path, query = (urllib.parse.quote(part, safe="/%:=&?~+!$,;'@()*") for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _one_line(what: object) -> str:
    """What a server said, which may be anything."""
    line = " ".join(str(what).split())
    return line if line.isprintable() else repr(line)


def _store(url: str, target: Path, response: HTTPResponse) -> None:
    """Write a response whole, of the announced length and, where the name ends in one, of that SHA-256."""
    expected = response.headers.get("Content-Length")
    if response.headers.get_content_type() == "text/html":
        raise InputError(
            f"{url}: the server sends a web page, not a file; correct the address, "
            f"or download the file elsewhere and place it at {target}"
        )
    digest, size = hashlib.sha256(), 0
    with write_atomically(target) as file:
        while block := response.read(1 << 20):
            file.write(block)
            digest.update(block)
            size += len(block)
        if size == 0 or (expected is not None and size != int(expected)):
            raise InputError(
                f"{url}: the download broke off after {size} of {expected or 'unknown'} bytes; "
                f"run the command again, or download it elsewhere and place it at {target}"
            )
        named = re.search(r"-([0-9a-f]{8,64})\.\w+$", target.name)
        if url.startswith(_TORCH_PREFIX) and named and not digest.hexdigest().startswith(named[1]):
            raise InputError(
                f"{url}: what came does not have the checksum of its name ({named[1]}); "
                f"run the command again, or download it elsewhere and place it at {target}"
            )
