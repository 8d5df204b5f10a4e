"""panomask.json_file."""

import gc
import json

import pytest

from panomask.errors import InputError
from panomask.json_file import collection_paused, read_json, write_json


def test_round_trip(tmp_path):
    content = {"a": [1, None, "é"]}
    write_json(tmp_path / "new" / "a.json", content)
    assert read_json(tmp_path / "new" / "a.json") == content
    (tmp_path / "bom.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert read_json(tmp_path / "bom.json") == content


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,\n "b" 2}', "line 2 column 6: broken JSON"),
        ('{"a": [1, 2', "ends too early"),
        ("", "too early"),
    ],
)
def test_broken_files(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_json(tmp_path / "a.json")
    assert gc.isenabled()


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="is a folder"):
        read_json(tmp_path)


@pytest.mark.parametrize("was_enabled", [True, False])
def test_collection_is_as_before(was_enabled):
    try:
        (gc.enable if was_enabled else gc.disable)()
        with collection_paused():
            assert not gc.isenabled()
        assert gc.isenabled() == was_enabled
        with pytest.raises(KeyError), collection_paused():
            raise KeyError
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()


@pytest.mark.parametrize("length", [0, 1, 3, 4])
def test_lists_are_written_in_portions(tmp_path, monkeypatch, length):
    monkeypatch.setattr("panomask.json_file.ENTRIES_AT_A_TIME", 3)
    content = [{"score": number / 3, "name": "é"} for number in range(length)]
    write_json(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_text() == json.dumps(content)
