"""`@configurable`: one callable, built from a config or from explicit arguments.

The constructor takes explicit keywords and knows no config; `from_config` reads the config and returns those
keywords.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from fvcore.common.config import CfgNode

_Result = TypeVar("_Result")
_FromConfig = Callable[..., dict[str, Any]]


@overload
def configurable(
    init_func: Callable[..., _Result], *, from_config: None = None
) -> Callable[..., _Result]: ...


@overload
def configurable(
    init_func: None = None, *, from_config: _FromConfig
) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]: ...


def configurable(
    init_func: Callable[..., Any] | None = None, *, from_config: _FromConfig | None = None
) -> Any:
    """Lets `__init__` or a function be called with a config as well as with its own arguments.

    On a class::

        class Head(nn.Module):
            @configurable
            def __init__(self, *, channels): ...

            @classmethod
            def from_config(cls, cfg, input_shape):
                return {"channels": cfg.MODEL.HEAD.CHANNELS}

        Head(channels=8)                  # explicit
        Head(cfg, input_shape)            # through from_config
        Head(cfg, input_shape, channels=9)  # explicit keywords replace what from_config returned

    On a function: `@configurable(from_config=lambda cfg: {...})`; the function then has `.from_config` too.

    A call goes through `from_config` when its first argument, or `cfg=`, is a config. Keywords that
    `from_config` does not take are passed on; a subclass' `from_config` serves the inherited `__init__`.
    Raises TypeError for wrong use.
    """
    if init_func is not None:
        if not inspect.isfunction(init_func) or from_config is not None or init_func.__name__ != "__init__":
            raise TypeError(
                "write @configurable on __init__, or @configurable(from_config=...) on a function"
            )
        return _configurable_init(init_func)
    if not callable(from_config):
        raise TypeError(
            "@configurable on a function needs from_config=, a callable whose first argument is cfg"
        )
    return functools.partial(_configurable_function, from_config=from_config)


def _configurable_init(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        from_config = getattr(type(self), "from_config", None)
        if not inspect.ismethod(from_config):
            raise TypeError(f"{type(self).__name__}: @configurable needs a classmethod 'from_config'")
        if _is_called_with_config(args, kwargs):
            init(self, **_explicit_arguments(from_config, args, kwargs))
        else:
            init(self, *args, **kwargs)

    return wrapped


def _configurable_function(function: Callable[..., Any], *, from_config: _FromConfig) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _is_called_with_config(args, kwargs):
            return function(**_explicit_arguments(from_config, args, kwargs))
        return function(*args, **kwargs)

    wrapped.from_config = from_config  # type: ignore[attr-defined]
    return wrapped


def _is_called_with_config(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return isinstance(args[0] if args else kwargs.get("cfg"), CfgNode)


def _explicit_arguments(
    from_config: _FromConfig, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keywords from `from_config`, and those of the call that `from_config` does not take."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"{from_config}: the first parameter of from_config must be named 'cfg'")
    takes_any = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
    taken = {name: value for name, value in kwargs.items() if takes_any or name in parameters}
    passed_on = {name: value for name, value in kwargs.items() if name not in taken}
    return {**from_config(*args, **taken), **passed_on}
