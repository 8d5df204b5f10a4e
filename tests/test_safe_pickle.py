import contextlib
import pickle
import re
import struct
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from panomask.errors import InputError
from panomask.safe_pickle import load_pickle

CONTENT = {
    "array": np.arange(6.0).reshape(2, 3),
    "transposed": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(2, 0, 1),
    "fortran": np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "bool": np.array([True, False]),
    "text array": np.array(["ab", "c"]),
    "empty": np.zeros((0, 4), np.float16),
    "no axis": np.array(3.0),
    "scalar": np.float32(0.5),
    "plain": [1, -2, 2**80, 2.5, 1 + 2j, None, True, "äß\n'\\", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "bytes": [b"", b"\x00\xff\n", bytearray(b"12")],
    "sets": [{1, 2}, frozenset(["a"]), set()],
    "ordered": OrderedDict(x=1, y=[{}]),
    ("key", 1): {},
}


def write(path, content: object, protocol: int = 4) -> str:
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    path.write_bytes(data)
    return str(path)


def fails(path: str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_pickle(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), message


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_of_every_protocol(tmp_path, protocol):
    found = load_pickle(write(tmp_path / "a.pkl", CONTENT, protocol))
    assert list(found) == list(CONTENT)
    for key, value in CONTENT.items():
        if isinstance(value, np.ndarray):
            assert type(found[key]) is np.ndarray
            assert found[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            assert np.array_equal(found[key], value)
            found[key][...] = found[key]  # can be written to
        else:
            assert found[key] == value
            assert type(found[key]) is type(value)
    assert [type(item) for item in found["plain"]] == [type(item) for item in CONTENT["plain"]]


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_shared_stays_shared(tmp_path, protocol):
    array, circle = np.ones(3), []
    circle.append(circle)
    found = load_pickle(write(tmp_path / "a.pkl", {"a": array, "b": [array], "c": circle}, protocol))
    assert found["a"] is found["b"][0]
    assert found["c"] is found["c"][0]


def test_files_of_python_2(tmp_path):
    """As pickle.dumps({'w': numpy.array([1, 2], 'f4'), 'n': 'caf\\xe9'}, p) of Python 2 wrote them."""
    raw = struct.pack("<2f", 1, 2)
    name = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01(K\x02t" + dtype
    binary = b"\x80\x02}(U\x01w" + name + state + b"\x89U\x08" + raw + b"tbU\x01nU\x04caf\xe9u."
    text = (
        b"(dS'w'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + b"'\\x00\\x00\\x80?\\x00\\x00\\x00@'"
        + b"\ntbsS'n'\nS\"caf\\xe9\"\ns."
    )
    for content in (binary, text):
        found = load_pickle(write(tmp_path / "a.pkl", content))
        assert found["w"].tolist() == [1, 2]
        assert found["w"].dtype == np.float32
        assert found["n"] == "café"


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_named_and_not_run(tmp_path, capsys, protocol):
    fails(write(tmp_path / "a.pkl", [Calls(print, "ran")], protocol), r"holds \w+\.print, which is not read")
    fails(
        write(tmp_path / "a.pkl", Calls(__import__("os").system, "echo ran"), protocol), r"holds \w+\.system"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content, name",
    [
        (defaultdict(list), r"collections\.defaultdict"),
        (np.array([None, {}]), "array of type 'O8'"),
        (np.zeros(2, [("x", "f4")]), r"array of type 'V4'"),
        (np.ma.masked_array([1]), r"numpy\.ma"),
        (np.random.default_rng(0), r"numpy\.random"),
        (Calls(bytearray, 1000), "not a readable"),  # a size to allocate
        (Calls(OrderedDict.fromkeys, "ab"), "getattr"),
    ],
)
def test_other_things_are_refused_by_name(tmp_path, content, name):
    fails(write(tmp_path / "a.pkl", content), name)


@pytest.mark.parametrize(
    "data",
    [
        b"(S'echo'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'echo'\no.",  # OBJ
        b"\x80\x02\x82\x01.",  # extension registry
        b"Pname\n.",  # persistent id
        b"\x80\x05\x97.",  # buffer out of band
    ],
)
def test_old_ways_to_make_objects_are_refused(tmp_path, data):
    fails(write(tmp_path / "a.pkl", data), "holds .*could run code")


def test_names_stand_for_nothing_but_calls(tmp_path):
    """A state for one of our functions (which could change it) is refused; so is calling a value."""
    fails(write(tmp_path / "a.pkl", b"c_codecs\nencode\n}b."), "not a readable")
    fails(write(tmp_path / "a.pkl", b"cnumpy\nndarray\n)R."), "not a readable")
    fails(write(tmp_path / "a.pkl", b"K\x01)R."), "not a readable")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.",  # 2**40 bytes
        b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.",  # the same, writable
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of 2**31 entries: no harm
        b"(c__builtin__\nbytearray\n(L1000000000000L\ntR.",
    ],
)
def test_huge_claims_allocate_nothing(tmp_path, data):
    path = write(tmp_path / "a.pkl", data)
    if b"]r" in data:
        assert load_pickle(path) == []
    else:
        fails(path, "not a readable pickle file")


def test_an_array_larger_than_its_bytes(tmp_path):
    data = pickle.dumps(np.zeros(3, np.uint8), 2).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")
    fails(write(tmp_path / "a.pkl", data), "not a readable pickle file")


def test_keys_whose_hash_takes_for_ever(tmp_path):
    nested = ()
    for _ in range(60):
        nested = (nested, nested)
    data = pickle.dumps(nested, 2)
    fails(
        write(tmp_path / "a.pkl", b"\x80\x02}" + data[2:-1] + b"Ns."), "holds a tuple of other than text and"
    )
    key = b"\x8b" + struct.pack("<I", 1000) + b"\x01" * 1000
    fails(write(tmp_path / "a.pkl", b"\x80\x02}" + key + b"Ns."), "number of more than 64 bits as a key")


@pytest.mark.parametrize("key", [1j, (1, 2), (1.5, "a", np.int64(2)), tuple("a" * 17)])
def test_keys_that_could_all_share_one_hash(tmp_path, key):
    fails(write(tmp_path / "a.pkl", {key: 0}), "as a key, which is not read")


@pytest.mark.parametrize(
    "call",
    [
        b"c_codecs\nencode\nq\x00" + b"X" + struct.pack("<I", 9000) + b"a" * 9000 + b"q\x01",
        b"c__builtin__\nset\nq\x00(" + b"K\x01" * 9000 + b"tq\x01",
    ],
)
def test_one_text_given_to_many_calls(tmp_path, call):
    """Each call copies what it is given: 10 kB and a thousand calls would make 9 MB, 1 MB some 100 GB."""
    assert load_pickle(write(tmp_path / "a.pkl", b"\x80\x02" + call + b"h\x00h\x01\x85R."))
    fails(
        write(tmp_path / "a.pkl", b"\x80\x02" + call + b"h\x00h\x01\x85R" * 1000 + b"."),
        "values that multiply",
    )


@pytest.mark.parametrize(
    "use", [b"2\x93.", b"cnumpy\ndtype\nh\x01\x85R.", b"c_codecs\nencode\nX\x01\0\0\0ah\x01\x86R."]
)
def test_lists_in_lists_are_not_put_into_messages(tmp_path, use):
    """60 lists, each twice in the next: their text would have 2**60 brackets."""
    nested = b"]" + b"q\x01](h\x01h\x01e" * 60
    fails(write(tmp_path / "a.pkl", b"\x80\x02" + nested + b"q\x01" + use), "not a readable")


def test_elements_without_size_and_long_names(tmp_path):
    claim = pickle.dumps(np.zeros(0, "S1"), 2).replace(b"S1", b"S0")
    assert b"S0" in claim
    fails(write(tmp_path / "a.pkl", claim), "array of type 'S0'")
    path = write(tmp_path / "a.pkl", b"cos\n" + b"a" * 10000 + b"\n.")
    with pytest.raises(InputError, match=r"holds os\.aaa") as caught:
        load_pickle(path)
    assert len(str(caught.value)) < 500


def test_truncated_at_any_length(tmp_path):
    data = pickle.dumps(CONTENT, 2)
    for length in range(0, len(data), 7):
        path = write(tmp_path / "a.pkl", data[:length])
        fails(path, "is empty" if length == 0 else f"{length} bytes")


def test_any_damage_is_one_line_or_harmless(tmp_path):
    data = bytearray(pickle.dumps(CONTENT, 2))
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 200):
        damaged = data.copy()
        damaged[position] ^= 1 << rng.integers(8)
        path = write(tmp_path / "a.pkl", bytes(damaged))
        with contextlib.suppress(InputError):
            load_pickle(path)


def test_missing_file_folder_and_text(tmp_path):
    fails(str(tmp_path / "none.pkl"), "no such file")
    fails(str(tmp_path), "is a folder")
    fails(write(tmp_path / "a.pkl", b"epochs: 12\n"), "not a readable pickle file .*11 bytes")
