import argparse
import codecs
import copy
import json
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from panomask.checkpoint.files import read_checkpoint, to_plain, write_weights
from panomask.errors import InputError


def save(path, content) -> str:
    torch.save(content, path)
    return str(path)


def fails(path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_checkpoint(str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), message


@pytest.mark.parametrize(
    "wrap", [lambda sd: {"model": sd, "iteration": 4}, lambda sd: sd], ids=["model", "bare"]
)
def test_reads_a_state_dict_bare_or_under_model(tmp_path, wrap):
    state = OrderedDict(weight=torch.arange(6.0).reshape(2, 3))
    checkpoint = read_checkpoint(save(tmp_path / "a.pth", wrap(state)))
    assert torch.equal(checkpoint["model"]["weight"], state["weight"])


def test_prefix_of_data_parallel_wrappers_is_dropped(tmp_path):
    path = save(tmp_path / "a.pth", {"model": {"module.weight": torch.ones(1)}})
    assert list(read_checkpoint(path)["model"]) == ["weight"]


def test_missing_file_and_folder(tmp_path):
    fails(tmp_path / "none.pth", "no such file")
    fails(tmp_path, "is a folder")


def test_truncated_file_at_any_length(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save({"model": {"weight": torch.ones(1000)}}, whole)
    data = whole.read_bytes()
    for length in (0, 1, 10, 100, len(data) // 2, len(data) - 1):
        path = tmp_path / f"{length}.pth"
        path.write_bytes(data[:length])
        fails(path, "empty" if length == 0 else rf"truncated.*; {length} bytes\); give an intact")


def test_what_torch_says_of_its_internals_is_chained_not_shown(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save({"model": {"weight": torch.ones(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError) as caught:
        read_checkpoint(str(path))
    assert not re.search("miniz|PytorchStreamReader|internal", str(caught.value))
    assert caught.value.__cause__ is not None
    path.write_text("epochs: 12\n")
    fails(path, r"not a readable checkpoint \([^:]*; 11 bytes\); give")


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_a_weight_is_found(tmp_path, position):
    path = tmp_path / "a.pth"
    weights = {"first": torch.ones(1000), "second": torch.ones(1000)}
    torch.save({"model": weights}, path)
    data = bytearray(path.read_bytes())
    start = data.index(weights["second"].numpy().tobytes())
    data[start + int(position * 4000)] ^= 1
    path.write_bytes(data)
    fails(path, r"damaged: its entry '.*data/\d' does not fit its checksum; give an intact")


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "a.pth", {"model": {"weight": torch.ones(3)}})
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(path)["model"]["weight"].tolist() == [1, 1, 1]


def test_the_older_format_of_torch_is_read(tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(str(tmp_path / "a.pth"))["model"]["weight"].tolist() == [1, 1, 1]


def test_not_a_checkpoint(tmp_path):
    text = tmp_path / "notes.pth"
    text.write_text('{"images": []}')
    fails(text, "not a readable checkpoint")
    fails(tmp_path / "zoo.pkl", "no such file")
    (tmp_path / "zoo.pkl").write_bytes(b"\x80\x04N.")
    fails(tmp_path / "zoo.pkl", "holds a NoneType, not a checkpoint")
    fails(save(tmp_path / "list.pth", [torch.ones(1)]), "holds a list")
    fails(save(tmp_path / "empty.pth", {}), "not a checkpoint")
    fails(save(tmp_path / "empty_model.pth", {"model": {}}), "state dict is empty")
    fails(save(tmp_path / "numbers.pth", {"epoch": 3}), "'epoch' is a int")


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    path = save(tmp_path / "evil.pth", {"model": {"weight": Malicious()}})
    fails(path, r"holds \S*print, which is not read since it could run code; save the state dict alone")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_zip", [True, False])
def test_calls_that_torch_refuses_by_their_module_are_named(tmp_path, is_zip):
    class Shell:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    weights = {"model": {"weight": Shell()}}
    torch.save(weights, tmp_path / "evil.pth", _use_new_zipfile_serialization=is_zip)
    fails(tmp_path / "evil.pth", r"holds (posix|nt)\.system, which is not read since it could run code")
    assert not (tmp_path / "ran").exists()


def test_nan_weight_is_refused_by_name(tmp_path):
    state = {"fine": torch.ones(2), "stem.weight": torch.tensor([1.0, float("nan")])}
    fails(save(tmp_path / "nan.pth", state), "'stem.weight' holds NaN")


def test_plain_values_survive_a_round_trip(tmp_path):
    value = {
        "rate": np.float64(0.5),
        "count": np.int64(3),
        "array": np.arange(3),
        "nested": [(1, None, "x"), {2: torch.ones(2)}],
        "parameter": torch.nn.Parameter(torch.ones(1)),
    }
    path = save(tmp_path / "a.pth", to_plain({"model": {"w": torch.ones(1)}, "extra": value}))
    extra = read_checkpoint(path)["extra"]
    assert (extra["rate"], extra["count"]) == (0.5, 3)
    assert extra["array"].tolist() == [0, 1, 2]
    assert extra["nested"][0] == (1, None, "x")


def test_values_that_could_not_be_read_back_are_refused_when_written():
    with pytest.raises(TypeError, match=r"checkpoint\['hooks'\]\[1\] is a Malicious"):
        to_plain({"hooks": [1, Malicious()]})


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "wrap", [lambda sd: {"model": sd, "__author__": "x"}, lambda sd: sd, lambda sd: {"blobs": sd}]
)
def test_pickles_of_arrays(tmp_path, wrap, protocol):
    state = {"w": np.arange(6.0).reshape(2, 3), "big": np.arange(3, dtype=">f4"), "step": np.float32(2)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(wrap(state), protocol))
    model = read_checkpoint(str(tmp_path / "a.pkl"))["model"]
    assert {key: value.tolist() for key, value in model.items()} == {
        "w": [[0, 1, 2], [3, 4, 5]],
        "big": [0, 1, 2],
        "step": 2,
    }


@pytest.mark.parametrize(
    "content, words",
    [
        ({"model": {"w": Malicious()}}, r"holds \w+\.print, which is not read since it could run code"),
        ({"model": {"w": torch.ones(1)}}, r"holds torch\._utils\._rebuild_tensor_v2, which is not read"),
        ({"w": np.array([1, float("nan")])}, "weight 'w' holds NaN"),
        ({"w": np.array(["text"])}, "'w' is a ndarray, not a tensor"),
        ([np.ones(1)], "holds a list, not a checkpoint"),
    ],
)
def test_pickles_of_other_things(tmp_path, capsys, content, words):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    fails(tmp_path / "a.pkl", words)
    assert capsys.readouterr().out == ""


def test_safetensors_round_trip(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    path = str(tmp_path / "folder" / "a.safetensors")
    write_weights(path, {"model": {"w": shared.T, "same": shared}, "thing_classes": ["a", "é"]})
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint["model"]["w"], shared.T)
    assert checkpoint["thing_classes"] == ["a", "é"]
    data = open(path, "rb").read()
    for length in (0, 1, 8, 50, len(data) - 1):
        open(path, "wb").write(data[:length])
        fails(path, "empty" if length == 0 else rf"safetensors file .*{length} bytes\)")
    open(path, "wb").write(b"\xff" * 7 + b"\x00" + data[8:])
    fails(path, "not a readable safetensors file")


def test_files_to_write_end_as_what_they_are(tmp_path):
    state = {"model": {"w": torch.ones(1)}, "epoch": 3}
    write_weights(str(tmp_path / "a.pth"), state)
    assert read_checkpoint(str(tmp_path / "a.pth"))["epoch"] == 3
    with pytest.raises(InputError, match=r"a\.bin: weights are written as \.pth or \.safetensors"):
        write_weights(str(tmp_path / "a.bin"), state)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_weights(str(tmp_path / "file" / "a.pth"), state)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"model": {"w": torch.zeros(1_000_000)}}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in source.infolist():
            bomb.writestr(entry.filename, source.read(entry))
    fails(path, rf"compressed file that would unpack to 4\d{{6}} bytes from {path.stat().st_size}")


def test_entries_that_share_their_bytes_are_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as bomb:
        bomb.writestr("a/data/0", bytes(1000))
        for number in range(1, 50):
            twin = copy.copy(bomb.filelist[0])
            twin.filename = f"a/data/{number}"
            bomb.filelist.append(twin)
    fails(path, rf"would unpack to 50000 bytes from {path.stat().st_size}")


def test_a_weight_that_claims_more_than_the_file_holds(tmp_path):
    path = save(tmp_path / "a.pth", {"w": torch.zeros(1).expand(10**12)})
    fails(path, r"'w' claims the shape \(1000000000000,\), more than the \d+ bytes of the file")
    fails(save(tmp_path / "b.pth", {"w": torch.eye(2).to_sparse()}), "'w' is not a dense tensor")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_call_that_claims_memory_is_not_made(tmp_path, is_zip):
    class Claim:
        def __reduce__(self):
            return bytearray, (10**11,)

    path = tmp_path / "a.pth"
    content = {"model": {"w": torch.ones(1)}, "x": Claim()}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    fails(path, r"holds \w+\.bytearray, which is not read since it could claim any amount of memory")


@pytest.mark.parametrize("wrapper", ["model_state", "state_dict"])
def test_state_dicts_under_other_names(tmp_path, wrapper):
    path = save(tmp_path / "a.pyth", {wrapper: {"w": torch.ones(1)}, "epoch": 3})
    checkpoint = read_checkpoint(path)
    assert list(checkpoint["model"]) == ["w"]
    assert checkpoint["epoch"] == 3


def test_one_storage_for_many_weights(tmp_path):
    weight = torch.ones(1000)
    shared = {f"head.{i}.weight": weight for i in range(6)}
    assert len(read_checkpoint(save(tmp_path / "heads.pth", shared))["model"]) == 6
    path = save(tmp_path / "a.pth", {str(i): weight for i in range(200)})
    fails(path, r"its 200 weights share their bytes: 800000 of the \d+ bytes of the file; save each once")


@pytest.mark.parametrize("codec", ["hex", "HeX-codec", "base64", "quopri"])
def test_text_that_doubles_with_each_call(tmp_path, codec):
    """torch's safe reader makes 2**30 bytes of 900 so."""

    class Doubled:
        def __reduce__(self):
            return codecs.encode, (b"aa", codec)

    path = save(tmp_path / "a.pth", {"model": {"w": torch.ones(1)}, "x": Doubled()})
    fails(path, rf"holds bytes in '{codec}', which is not read since it could claim any amount of memory")
    path = save(tmp_path / "b.pth", {"model": {"w": torch.ones(1)}, "x": b"bytes", "y": "utf-8"})
    assert read_checkpoint(path)["x"] == b"bytes"


def test_settings_beside_the_weights(tmp_path):
    """As DETR's training script saves them."""
    content = {"model": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=1e-4)}
    assert read_checkpoint(save(tmp_path / "a.pth", content))["args"].lr == 1e-4


def test_older_format_of_torch_named_pkl(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pkl", _use_new_zipfile_serialization=False)
    assert read_checkpoint(str(tmp_path / "a.pkl"))["model"]["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "weight, words",
    [
        (torch.tensor([1j]), "'w' is not a dense tensor of numbers"),
        (torch.zeros(2, dtype=torch.uint8).view(torch.bits8), "'w' is not a dense tensor of numbers"),
        (torch.ones(1).to(torch.float8_e4m3fn), None),
        (torch.ones(1, dtype=torch.bfloat16), None),
        (torch.ones(1, dtype=torch.bool), None),
    ],
)
def test_types_of_weights(tmp_path, weight, words):
    path = save(tmp_path / "a.pth", {"w": weight})
    if words:
        fails(path, words)
    else:
        torch.zeros(1).copy_(read_checkpoint(path)["model"]["w"])


def test_numbers_that_torch_does_not_have(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.ones(1, np.longdouble)}))
    fails(tmp_path / "a.pkl", "'w' is a ndarray, not a tensor")


def test_names_of_weights_are_text_of_some_length(tmp_path):
    fails(save(tmp_path / "a.pth", {"model": {0: torch.ones(1)}}), "the name of a weight is a int; expected")
    fails(save(tmp_path / "b.pth", {"w" * 10**5: torch.ones(1)}), "name of a weight is 100000 letters long")


def test_a_program_in_the_place_of_weights(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:  # the entries of torch.jit.save
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"a/{name}", b"\x80\x02).")
    fails(path, "holds a TorchScript model")


def test_metadata_of_safetensors_that_nest_too_deep(tmp_path):
    path = tmp_path / "a.safetensors"
    header = json.dumps(
        {
            "__metadata__": {"panomask": "[" * 10**5},
            "w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"1")
    fails(path, "not a readable safetensors file")


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
    fails(tmp_path / ("x" * 300), "cannot be read .File name too long")
    path = save(tmp_path / "a.safetensors", {"w": torch.ones(1)})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    fails(path, "cannot be read .Permission denied.; check the path and its permissions")
