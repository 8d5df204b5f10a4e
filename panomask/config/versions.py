"""What Detectron2's users import beside `CfgNode`: versions of the key names, and one config for all."""

from panomask.config.defaults import _C
from panomask.config.node import CfgNode
from panomask.errors import InputError

global_cfg = CfgNode()
"""Empty until `set_global_cfg`; for experiments in places that no config reaches."""


def set_global_cfg(cfg: CfgNode) -> None:
    """Let `global_cfg` hold what `cfg` holds."""
    global_cfg.clear()
    global_cfg.update(cfg)


def upgrade_config(cfg: CfgNode, to_version: int | None = None) -> CfgNode:
    """A copy of `cfg` with the key names of a version, the newest by default.

    Raises:
        InputError: another VERSION than 2 comes or is asked for; those names went out of use in 2019.
    """
    return _checked_copy(cfg, _C.VERSION if to_version is None else to_version)


def downgrade_config(cfg: CfgNode, to_version: int) -> CfgNode:
    """As `upgrade_config`, for an older version."""
    return _checked_copy(cfg, to_version)


def _checked_copy(cfg: CfgNode, to_version: int) -> CfgNode:
    if {cfg.VERSION, to_version} != {_C.VERSION}:
        raise InputError(
            f"config of VERSION {cfg.VERSION} to VERSION {to_version}: names of VERSION {_C.VERSION} alone"
            " are known; bring the keys up to date by hand"
        )
    return cfg.clone()
