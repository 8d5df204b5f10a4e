"""Say a thing once: a data set is read for training and at each evaluation, but described once."""

import logging
from typing import Any

_said: set[tuple[str, ...]] = set()


def log_once(
    logger: logging.Logger, key: tuple[str, ...], message: str, *args: Any, level: int = logging.INFO
) -> None:
    """Log at `level` when `key` comes for the first time in this process, at DEBUG afterwards."""
    logger.log(logging.DEBUG if key in _said else level, message, *args)
    _said.add(key)
