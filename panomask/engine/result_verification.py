"""Does a run reach the scores that its config promises (TEST.EXPECTED_RESULTS)?"""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from panomask.evaluation import unmet_expectations

logger = logging.getLogger(__name__)


def verify_results(cfg: Any, results: Mapping[str, Any]) -> bool:
    """Compare results with TEST.EXPECTED_RESULTS, a list of [task, metric, value, tolerance].

    Returns:
        True when every expectation is met or none is stated. A miss is logged and ends the program with
        status 1.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    if not expected:
        return True
    misses = unmet_expectations(expected, results)
    for line in misses:
        logger.error("TEST.EXPECTED_RESULTS not met: %s", line)
    if misses:
        sys.exit(1)
    logger.info("TEST.EXPECTED_RESULTS: all %d met", len(expected))
    return True
