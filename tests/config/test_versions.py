import pytest

from panomask.config import get_cfg, global_cfg, set_global_cfg
from panomask.config.versions import downgrade_config, upgrade_config
from panomask.errors import InputError


def test_a_config_of_today_is_copied():
    cfg = get_cfg()
    for copied in (upgrade_config(cfg), upgrade_config(cfg, 2), downgrade_config(cfg, 2)):
        assert copied == cfg
        assert copied is not cfg


def test_other_versions_are_refused():
    with pytest.raises(InputError, match="VERSION 2 to VERSION 1"):
        downgrade_config(get_cfg(), 1)
    old = get_cfg()
    old.VERSION = 1
    with pytest.raises(InputError, match="VERSION 1 to VERSION 2"):
        upgrade_config(old)


def test_the_global_config():
    cfg = get_cfg()
    cfg.GLOBAL.HACK = 2.5
    try:
        set_global_cfg(cfg)
        assert global_cfg.GLOBAL.HACK == 2.5
        set_global_cfg(get_cfg())
        assert global_cfg == get_cfg()
    finally:
        global_cfg.clear()
