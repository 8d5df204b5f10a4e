"""Config: keys and defaults, files and overrides, validation, and `@configurable`."""

from panomask.config.configurable import configurable
from panomask.config.defaults import get_cfg
from panomask.config.node import CfgNode
from panomask.config.validation import check_supported, obeys
from panomask.config.versions import downgrade_config, global_cfg, set_global_cfg, upgrade_config

__all__ = [
    "CfgNode",
    "check_supported",
    "configurable",
    "downgrade_config",
    "get_cfg",
    "global_cfg",
    "obeys",
    "set_global_cfg",
    "upgrade_config",
]
