"""A function on its way to another process."""

import pickle
from typing import Any

from panomask.errors import InputError


class PicklableWrapper:
    """Stands for `obj` (calls and attributes reach it) and is `obj` itself once unpickled.

    Detectron2's name. There it packs code into the pickle; here what cannot be found by its name is refused
    with one clear line. Workers that are forked, as on Linux, need no pickle at all.
    """

    def __init__(self, obj: Any):
        self._obj: Any = obj._obj if isinstance(obj, PicklableWrapper) else obj

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return pickle.loads, (pickle.dumps(self._obj),)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"{self._obj!r:.80} cannot be sent to another process ({error}); define it at the top of a"
                " module, without lambda"
            ) from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":  # not set yet
            raise AttributeError(name)
        return getattr(self._obj, name)
