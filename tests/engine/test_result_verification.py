import pytest

from panomask.config import get_cfg
from panomask.engine import verify_results

RESULTS = {"bbox": {"AP": 41.25}}


def _cfg(*expected):
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = list(expected)
    return cfg


def test_met_or_unstated_expectations_pass():
    assert verify_results(_cfg(), RESULTS)
    assert verify_results(_cfg(["bbox", "AP", 41.0, 0.3]), RESULTS)


def test_a_miss_ends_the_program_with_status_1():
    with pytest.raises(SystemExit) as ended:
        verify_results(_cfg(["bbox", "AP", 41.0, 0.3], ["segm", "AP", 1.0, 9.0]), RESULTS)
    assert ended.value.code == 1
