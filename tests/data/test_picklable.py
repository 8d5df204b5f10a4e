import copy
import pickle

import pytest

from panomask.data.picklable import PicklableWrapper
from panomask.errors import InputError


def double(x: int) -> int:
    return 2 * x


def test_it_stands_for_the_function():
    wrapped = PicklableWrapper(PicklableWrapper(double))
    assert wrapped(4) == 8
    assert wrapped.__name__ == "double"
    assert wrapped._obj is double
    with pytest.raises(AttributeError):
        _ = wrapped.nothing


def test_it_unpickles_to_the_function():
    assert pickle.loads(pickle.dumps(PicklableWrapper(double))) is double
    assert copy.copy(PicklableWrapper(double)) is double


def test_what_has_no_name_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"<lambda>.*cannot be sent to another process") as caught:
        pickle.dumps(PicklableWrapper(lambda x: x))
    assert "\n" not in str(caught.value)
