"""Command lines of the tools: arguments, and how errors end a program."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from panomask.errors import InputError

_EPILOG = """
examples:
  on the CPU or one GPU:
    %(prog)s --config-file cfg.yaml MODEL.WEIGHTS weights.pth SOLVER.BASE_LR 0.001
  on four GPUs:
    %(prog)s --config-file cfg.yaml --num-gpus 4
  the same, with processes started by torchrun:
    torchrun --nproc-per-node 4 %(prog)s --config-file cfg.yaml
  on two machines of eight GPUs, with M = 0 on the first, whose address both get, and M = 1 on the second:
    %(prog)s --config-file cfg.yaml --num-gpus 8 --num-machines 2 --machine-rank M --dist-url tcp://HOST:PORT
"""


class _Parser(argparse.ArgumentParser):
    """Accepts options also between and after the KEY VALUE pairs."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        return self.parse_intermixed_args(args, namespace)


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of training tools: config file, KEY VALUE overrides, resuming, evaluation, processes.

    Args:
        epilog: replaces the examples below the help; `%(prog)s` stands for the program.
    """
    parser = _Parser(epilog=epilog or _EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="config file (YAML)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR, if there is one",
    )
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="evaluate MODEL.WEIGHTS (or, with --resume, the last checkpoint)",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, one a GPU; also on the CPU",
    )
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="number of machines")
    parser.add_argument(
        "--machine-rank",
        type=int,
        default=0,
        metavar="I",
        help="which machine this is, from 0; each has its own",
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="where processes meet: tcp://host:port; auto on one machine",
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides, such as SOLVER.BASE_LR 0.001"
    )
    return parser


def run_tool(main: Callable[[], Any]) -> None:
    """Run a command-line program.

    Bad input (`InputError`) prints one line, `error: ...`, and exits with status 1; Ctrl-C exits with 130; a
    reader that closed the pipe early ends it quietly. Any other exception is a bug and keeps its traceback.
    """
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        _let_first_process_speak()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Python flushes standard output on exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _let_first_process_speak(seconds: float = 3.0) -> None:
    """Under torchrun, all processes usually find the same fault: rank 0 says so and torchrun ends the others.

    Only when rank 0 found nothing is another rank still alive after the wait, and speaks.
    """
    if os.environ.get("RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in os.environ:
        time.sleep(seconds)
