import os
import shlex

import pytest

from panomask.engine import default_argument_parser, run_tool
from panomask.errors import InputError


def test_options_may_follow_the_overrides():
    line = "--config-file a.yaml SEED -1 SOLVER.STEPS '(1, 2)' --resume --num-gpus 2 X y"
    args = default_argument_parser().parse_args(shlex.split(line))
    assert args.opts == ["SEED", "-1", "SOLVER.STEPS", "(1, 2)", "X", "y"]
    assert (args.config_file, args.resume, args.eval_only, args.num_gpus) == ("a.yaml", True, False, 2)
    assert (args.num_machines, args.machine_rank, args.dist_url) == (1, 0, "auto")


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        default_argument_parser().parse_args(["--help"])
    assert "torchrun" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        default_argument_parser("call %(prog)s so").parse_args(["--help"])
    assert "torchrun" not in capsys.readouterr().out


def raises(error):
    def main():
        raise error

    return main


def test_bad_input_is_one_line_and_status_1(capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool(raises(InputError("file.json:\n  broken")))
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: file.json: broken\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ValueError, match="bug"):
        run_tool(raises(ValueError("bug")))


def test_interruption_is_status_130():
    with pytest.raises(SystemExit) as caught:
        run_tool(raises(KeyboardInterrupt()))
    assert caught.value.code == 130


def test_a_reader_that_goes_away_is_no_error(monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with pytest.raises(SystemExit) as caught:
            run_tool(lambda: print("x"))
    assert caught.value.code == 0
