import json

from panomask.engine.results import write_results


def test_results_become_json_and_a_table(tmp_path):
    folder = tmp_path / "out"
    write_results(str(folder), {"val": {"bbox": {"AP": 12.5, "APs": float("nan"), "AP-cat": 12.5}}})
    assert json.loads((folder / "results.json").read_text()) == {
        "val": {"bbox": {"AP": 12.5, "APs": None, "AP-cat": 12.5}}
    }
    table = (folder / "results.md").read_text()
    assert "12.50" in table
    assert "cat" in table
