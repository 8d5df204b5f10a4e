"""How a given value takes the type of the key that it is for.

The rules are yacs's (lists and tuples exchange, None replaces anything and is replaced by anything, texts are
read as Python literals), and more forgiving where nothing can be mistaken: an int serves for a float, `true`
for a bool, and `a,b` or a single value for a list or tuple. Whether a key may be None in the end is for
`check_supported` to say.
"""

from ast import literal_eval
from typing import Any

SCALARS = (str, int, float, bool, type(None))
SEQUENCES = (list, tuple)


def parse_text(text: str) -> Any:
    """`text` as a Python literal of config types, else `text` itself: "1e-4" -> 0.0001, "p2" -> "p2"."""
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, (*SCALARS, *SEQUENCES, dict)) else text


def coerce(value: Any, current: Any, *, is_command_line: bool = False) -> Any:
    """`value` in the type of `current`, the value that it replaces.

    `is_command_line`: a string was typed unquoted, so `None` for a string key means none; in YAML it is the
    string. Raises TypeError with the reason, fit to follow "KEY: ".
    """
    if isinstance(value, str):
        given, value = value, _read(value, current, is_command_line)
    else:
        given = value
    if value is None or current is None or type(value) is type(current):
        fits = isinstance(value, (*SCALARS, *SEQUENCES))
    elif isinstance(current, float) and type(value) is int:
        try:
            value, fits = float(value), True
        except OverflowError:
            raise TypeError(f"takes {article(current)} like {current!r}, not an int of this size") from None
    else:
        fits = isinstance(value, SEQUENCES) and isinstance(current, SEQUENCES)
    if not fits:
        raise TypeError(f"takes {article(current)} like {current!r}, not {article(value)}: {given!r}")
    if isinstance(value, SEQUENCES) and isinstance(current, SEQUENCES):
        _check_items(value, current)
        return like_container(value, current)
    return value


def _read(text: str, current: Any, is_command_line: bool) -> Any:
    """A string given for a key that holds `current`, read as what the key takes."""
    if isinstance(current, str):
        literal = parse_text(text) if is_command_line else text
        return literal if literal is None or isinstance(literal, str) else text
    if isinstance(current, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if isinstance(current, float) and text.lower().lstrip("+-") == "inf":
        return float(text)
    literal = parse_text(text)
    if not isinstance(current, SEQUENCES) or isinstance(literal, SEQUENCES) or literal is None:
        return literal
    if not isinstance(literal, str):
        return (literal,)
    items = (item.strip(" \"'") for item in literal.strip().strip("()[]").split(","))
    return tuple(item for item in items if item)


def like_container(value: Any, model: Any) -> Any:
    """`value` with its nested lists and tuples in the types that `model` has at the same place.

    Where `model` has nothing, the sequence around decides. YAML knows no tuples; so a dumped config reloads
    equal.
    """
    if not isinstance(value, SEQUENCES) or not isinstance(model, SEQUENCES):
        return value
    inner = next((item for item in model if isinstance(item, SEQUENCES)), type(model)())
    models = (
        model[i] if i < len(model) and isinstance(model[i], SEQUENCES) else inner for i in range(len(value))
    )
    return type(model)(
        like_container(item, item_model) for item, item_model in zip(value, models, strict=True)
    )


def _check_items(value: Any, current: Any) -> None:
    """Refuses strings among numbers and the like, where all of `current` is of one kind."""
    kinds, given = _leaf_kinds(current), _leaf_kinds(value)
    if len(kinds) == 1 and not given <= kinds:
        raise TypeError(f"takes a list of {kinds.pop()}s like {current!r}, not {value!r}")


def _leaf_kinds(value: Any) -> set[str]:
    if isinstance(value, SEQUENCES):
        return set().union(*(_leaf_kinds(item) for item in value))
    return {"number" if type(value) in (int, float) else type(value).__name__}


def article(value: Any) -> str:
    """The kind of `value` for a message: "an int", "a group of keys"."""
    if value is None:
        return "None"
    name = "group of keys" if isinstance(value, dict) else type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def plain(value: Any) -> Any:
    """`value` with every tuple as a list: the two mean the same in a config."""
    return [plain(item) for item in value] if isinstance(value, SEQUENCES) else value
