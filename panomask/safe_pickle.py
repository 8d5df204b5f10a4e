"""Read pickle files as data: numpy arrays and plain containers, and nothing that calls.

A pickle is a program that may call any function of the machine. Here `pickletools` parses its instructions,
and a small interpreter follows them that cannot import: it knows the names of `_CALLS` alone, each of which
stands for a function of this file.
"""

import mmap
import os
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from panomask.errors import InputError

_NUMBERS_AND_TEXT = re.compile(r"[<>|=]?(\?|b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU][1-9]\d{0,8})")

_MAX_COPIES = 4
"""All calls together may take this many times the file's size as arguments.

A pickler needs twice (an array's bytes as text, encoded, then filled in); a small file that hands one long
text to thousands of calls would fill the memory.
"""

_MAX_KEY_ITEMS = 16


_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


class _Refused(Exception):
    """What the file holds, which is not read."""


class _Damaged(Exception):
    """Instructions that no pickler writes."""


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """The content of a pickle file of any protocol, 0 to 5, also one written by Python 2.

    Byte strings of Python 2 become text by latin-1. What is read: numbers, text, bytes, None, lists, tuples,
    dicts, sets, OrderedDict, and numpy arrays and scalars of numbers or text. Memory and time grow with the
    size of the file, whatever it says.

    Raises:
        InputError: the file is missing, truncated or no pickle, or holds anything else, whose name is given.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give the path of a pickle file (.pkl)")
    size = file.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty; give an intact pickle file (.pkl)")
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _Interpreter(size).run(content)  # type: ignore[arg-type]
    except _Refused as error:
        raise InputError(
            f"{path}: holds {error}, which is not read since it could run code or exhaust the machine; "
            "save arrays and plain containers alone to a new file, where you trust this one"
        ) from None
    # what damaged bytes lead the parsers of pickletools and numpy to
    except (
        _Damaged,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise InputError(
            f"{path}: not a readable pickle file (truncated, damaged or of another format; {size} bytes); "
            "give an intact file"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


class _Global:
    """A name that stands for a function of this file (or for a class, as an argument of one)."""

    def __init__(self, name: str, call: Callable[..., Any] | None) -> None:
        self.name = name
        self.call = call


class _Dtype:
    """An array's type as pickled: a code, then by BUILD the byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str):
            raise _Damaged(f"a {type(code).__name__} in place of an array's type")
        if not _NUMBERS_AND_TEXT.fullmatch(code):
            raise _Refused(f"an array of type {code[:40]!r}")
        self.numpy = np.dtype(code)

    def build(self, state: tuple) -> None:
        if any(part not in (None, ()) for part in state[2:5]):
            raise _Refused("an array of records")
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


def _as_bytes(raw: Any) -> bytes | bytearray:
    """The bytes of an array; Python 2 wrote them as text."""
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(raw, (bytes, bytearray)):
        raise _Damaged(f"a {type(raw).__name__} in place of an array's bytes")
    return raw


def _reconstruct(kind: _Global, shape: tuple, code: Any) -> np.ndarray:
    """An empty array, which BUILD fills."""
    if kind.name != "numpy.ndarray":
        raise _Refused(kind.name)
    return np.empty(0, np.uint8)


def _fill_array(array: np.ndarray, state: tuple) -> None:
    _, shape, dtype, is_fortran, raw = state
    raw = bytes(_as_bytes(raw))
    # numpy compares shape and number of bytes before it allocates
    array.__setstate__((1, shape, dtype.numpy, bool(is_fortran), raw))  # type: ignore[arg-type]


def _from_buffer(raw: Any, dtype: _Dtype, shape: tuple, order: str, axes: tuple | None = None) -> np.ndarray:
    """An array of protocol 5; with `order` "K" the axes of the C-contiguous array of `shape` are permuted."""
    flat = np.frombuffer(_as_bytes(raw), dtype.numpy).copy()
    if order == "K" and axes is not None:
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, raw: Any) -> np.generic:
    (value,) = np.frombuffer(_as_bytes(raw), dtype.numpy)
    return value


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes for the readers of Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise _Damaged("text in another encoding")
    return text.encode("latin-1")


def _bytearray(content: Any = b"", encoding: str = "latin-1") -> bytearray:
    """A number in place of the content would be a size to allocate."""
    return bytearray(_as_bytes(content))


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    return OrderedDict((_as_key(key), value) for key, value in pairs)


def _set(items: list | tuple = ()) -> set:
    return {_as_key(item) for item in items}


def _frozenset(items: list | tuple = ()) -> frozenset:
    return frozenset(_set(items))


def _complex(real: float, imaginary: float) -> complex:
    return complex(real, imaginary)


_CALLS: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": _Dtype,
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
}
for _builtins in ("builtins", "__builtin__"):
    _CALLS |= {
        f"{_builtins}.set": _set,
        f"{_builtins}.frozenset": _frozenset,
        f"{_builtins}.bytearray": _bytearray,
        f"{_builtins}.bytes": lambda: b"",
        f"{_builtins}.complex": _complex,
    }
for _core in ("numpy.core", "numpy._core"):
    _CALLS |= {
        f"{_core}.multiarray._reconstruct": _reconstruct,
        f"{_core}.multiarray.scalar": _scalar,
        f"{_core}.numeric._frombuffer": _from_buffer,
    }


def _as_key(key: Any) -> Any:
    """A key of a dict or set, such that neither a hash takes long nor thousands of keys can share one.

    Text and bytes have secret hashes; numbers of 64 bits share one with few others. Two numbers in a
    tuple, or the parts of a complex number, could be chosen so that all have the same.
    """
    items = key if isinstance(key, tuple) else (key,)
    items = tuple(item.item() if isinstance(item, np.generic) else item for item in items)
    numbers = [item for item in items if isinstance(item, (int, float)) and not isinstance(item, bool)]
    is_plain = all(item is None or isinstance(item, (str, bytes, int, float)) for item in items)
    if not is_plain or len(items) > _MAX_KEY_ITEMS or len(numbers) > 1:
        raise _Refused(f"a {type(key).__name__} of other than text and one number as a key")
    if any(isinstance(number, int) and number.bit_length() > 64 for number in numbers):
        raise _Refused("a number of more than 64 bits as a key")
    return key


class _Interpreter:
    """The stack, the marks on it, and the memo of a pickle program."""

    def __init__(self, size: int) -> None:
        """`size` of the file, in bytes."""
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._may_take = _MAX_COPIES * size

    def run(self, file: IO[bytes]) -> Any:
        while code := file.read(1):
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise _Damaged("an unknown instruction")
            name = opcode.name
            if name == "STRING":  # pickletools takes ASCII alone
                argument: Any = _read_quoted(file)
            else:
                argument = None if opcode.arg is None else opcode.arg.reader(file)
            if name == "STOP":
                return self._stack.pop()
            if name in _PUSHED:
                self._stack.append(argument)
            else:
                _INSTRUCTIONS.get(name, _refuse_instruction)(self, argument)
        raise _Damaged("no end")

    def _items(self) -> list[Any]:
        """What lies above the last mark; both are taken away."""
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._items()

    def _pop_mark(self) -> None:
        self._items()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _tuple(self, length: int) -> None:
        items = [self._stack.pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise _Damaged("items for what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise _Damaged("entries for what is no dict")
        target.update((_as_key(key), value) for key, value in _pairs(items))

    def _add_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not set:
            raise _Damaged("items for what is no set")
        target.update(_set(items))

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _global(self, name: str | None) -> None:
        if name is None:
            attribute, module = self._stack.pop(), self._stack.pop()
        else:
            module, _, attribute = name.partition(" ")
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise _Damaged("a name that is no text")
        full_name = f"{module}.{attribute}"
        if full_name not in _CALLS:
            raise _Refused(_shown(full_name))
        self._stack.append(_Global(full_name, _CALLS[full_name]))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or function.call is None:
            raise _Damaged("a call of what is no function")
        self._take(arguments)
        self._stack.append(function.call(*arguments))

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, np.ndarray):
            self._take(state)
            _fill_array(target, state)
        elif isinstance(target, _Dtype):
            target.build(state)
        elif not isinstance(target, OrderedDict):  # whose attributes, such as torch's _metadata, are no data
            raise _Damaged("a state for what has none")

    def _take(self, arguments: tuple) -> None:
        """Raise _Refused when the calls have been given too much."""
        self._may_take -= sum(len(each) for each in arguments if isinstance(each, _SIZED))
        if self._may_take < 0:
            raise _Refused("values that multiply")


def _shown(name: str) -> str:
    """A name from the file, fit for a message."""
    name = name if len(name) <= 100 else f"{name[:100]}..."
    return name if name.isprintable() else repr(name)


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))


def _read_quoted(file: IO[bytes]) -> str:
    """A line of protocol 0 with a Python 2 string as its repr."""
    line = file.readline().rstrip(b"\n")
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise _Damaged("text without quotes")
    return _unescape(line[1:-1])


def _unescape(text: bytes) -> str:
    r"""Undo \\, \', \n, \r, \t and \xNN: all that the repr of Python 2 writes."""
    plain = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}

    def decode(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 16)]) if match[1] else plain.get(match[2], match[2])

    return re.sub(rb"\\(?:x([0-9a-fA-F]{2})|(.))", decode, text, flags=re.DOTALL).decode("latin-1")


def _refuse_instruction(machine: _Interpreter, argument: Any) -> None:
    """Old-style classes (INST, OBJ), persistent ids, extension codes, objects with keywords."""
    name = _shown(str(argument).replace(" ", ".", 1))
    raise _Refused(
        f"an object of another kind ({name})" if argument is not None else "an object of another kind"
    )


_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
"""Instructions whose argument is a value; pickletools decodes byte strings of Python 2 by latin-1."""

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_Instruction = Callable[[_Interpreter, Any], None]

_INSTRUCTIONS: dict[str, _Instruction] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "MARK": _Interpreter._mark,
    "POP": _Interpreter._pop,
    "POP_MARK": lambda m, _: m._pop_mark(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "LIST": lambda m, _: m._push(m._items()),
    "APPEND": lambda m, _: m._append([m._stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._items()),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "TUPLE": lambda m, _: m._push(tuple(m._items())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "DICT": lambda m, _: m._push({_as_key(key): value for key, value in _pairs(m._items())}),
    "SETITEM": lambda m, _: m._set_items([m._stack.pop(), m._stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m._set_items(m._items()),
    "EMPTY_SET": lambda m, _: m._push(set()),
    "ADDITEMS": lambda m, _: m._add_items(m._items()),
    "FROZENSET": lambda m, _: m._push(_frozenset(m._items())),
    "GET": _Interpreter._get,
    "BINGET": _Interpreter._get,
    "LONG_BINGET": _Interpreter._get,
    "PUT": _Interpreter._put,
    "BINPUT": _Interpreter._put,
    "LONG_BINPUT": _Interpreter._put,
    "MEMOIZE": _Interpreter._put,
    "GLOBAL": _Interpreter._global,
    "STACK_GLOBAL": _Interpreter._global,
    "REDUCE": _Interpreter._reduce,
    "NEWOBJ": _Interpreter._reduce,
    "BUILD": _Interpreter._build,
}
