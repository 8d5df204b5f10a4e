"""The final numbers as files."""

import json
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from panomask.atomic_file import write_atomically
from panomask.evaluation import results_table

logger = logging.getLogger(__name__)


def write_results(output_dir: str, results: Mapping[str, Any]) -> None:
    """Write `results.json` and `results.md`.

    Args:
        output_dir: folder of the files.
        results: {data set: {task: {metric: number}}}; NaN and infinity become null in the JSON.
    """
    os.makedirs(output_dir, exist_ok=True)
    json_file = os.path.join(output_dir, "results.json")
    with write_atomically(json_file, "w") as file:
        json.dump(_finite_or_none(results), file, indent=2)
        file.write("\n")
    table_file = os.path.join(output_dir, "results.md")
    with write_atomically(table_file, "w") as file:
        file.write(results_table(results) + "\n")
    logger.info(f"These results are in {json_file} and {table_file}")


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite_or_none(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_none(inner) for inner in value]
    if isinstance(value, str | bool | int | type(None)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
