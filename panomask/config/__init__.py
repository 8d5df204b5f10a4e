"""Config: keys and defaults, files and overrides, validation, and `@configurable`."""

from panomask.config.configurable import configurable
from panomask.config.defaults import get_cfg
from panomask.config.node import CfgNode
from panomask.config.validation import check_supported, obeys

__all__ = ["CfgNode", "check_supported", "configurable", "get_cfg", "obeys"]
