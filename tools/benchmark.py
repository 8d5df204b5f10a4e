#!/usr/bin/env python
"""Time panomask beside what a user would take instead: torchvision, pycocotools, PIL, plain modules.

Both ways run in turn in this process, after their results were compared; what counts is the median of the
rounds' ratios. Times of a busy machine are not worth much.
"""

import argparse
import shlex
import sys
from pathlib import Path
from types import ModuleType

import torch

from panomask.benchmark import (
    coco_evaluation,
    inference,
    input,
    operations,
    panoptic_quality,
    results,
    training,
)
from panomask.benchmark.comparison import DEFAULT_ROUNDS, Disagreement, Measurement, measure
from panomask.benchmark.report import as_json, describe_machine, markdown_table
from panomask.engine import run_tool
from panomask.errors import InputError
from panomask.json_file import write_json

SUBJECTS: dict[str, tuple[ModuleType, str]] = {
    "operations": (operations, "RoIAlign and fully connected layers"),
    "results": (results, "masks pasted and encoded, keypoints decoded"),
    "inference": (inference, "Mask R-CNN and RetinaNet on one image"),
    "training": (training, "a training step of Mask R-CNN"),
    "input": (input, "from files and annotations to training samples"),
    "coco": (coco_evaluation, "box, mask and keypoint AP"),
    "panoptic": (panoptic_quality, "panoptic quality"),
}
EXAMPLES = """
examples:
  everything, as in benchmarks.md:
    %(prog)s all
  one subject, with its own options (%(prog)s inference --help):
    %(prog)s inference --height 640 --width 640 --rounds 5 --json inference.json
  training on a GPU:
    %(prog)s training --device cuda --precision bfloat16 --size 800 --images 16
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name, (module, text) in SUBJECTS.items():
        subject = subjects.add_parser(name, help=text, description=text.capitalize() + ".")
        module.add_arguments(subject)
        _add_common_arguments(subject)
    _add_common_arguments(subjects.add_parser("all", help="all of these, at the sizes of benchmarks.md"))
    args = parser.parse_args()
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    """Refuse what would be found after minutes, or not at all."""
    for name, value in vars(args).items():
        numbers = [x for x in (value if isinstance(value, list) else [value]) if type(x) is int]
        if any(number < 1 for number in numbers):
            raise InputError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    if getattr(args, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU on this machine; leave it out")
    if args.json is not None:
        try:
            Path(args.json).parent.mkdir(parents=True, exist_ok=True)
            with open(args.json, "a"):
                pass
        except OSError as error:
            raise InputError(f"--json {args.json}: cannot be written ({error.strerror})") from error


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, default=DEFAULT_ROUNDS, metavar="N", help="at most; default: %(default)s"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of torch; default: as torch has it")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured there too")


def main() -> None:
    args = parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    machine = describe_machine()
    names = list(SUBJECTS) if args.subject == "all" else [args.subject]
    measurements: list[Measurement] = []
    disagreements: list[str] = []
    try:
        for name in names:
            module = SUBJECTS[name][0]
            of_subject = args if args.subject == name else _defaults(module)
            for comparison in module.comparisons(of_subject):
                print(f"{comparison.name}, beside {comparison.reference_name}", file=sys.stderr, flush=True)
                try:
                    measurements.append(measure(comparison, args.rounds))
                except Disagreement as error:
                    disagreements.append(str(error))
    finally:  # what was measured is not lost to what came after it
        _report(args, measurements, machine)
    for text in disagreements:
        print(f"not measured: {text}", file=sys.stderr)
    sys.exit(bool(disagreements))


def _defaults(module: ModuleType) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([])


def _report(args: argparse.Namespace, measurements: list[Measurement], machine: dict[str, object]) -> None:
    command = shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]])
    print(f"`{command}` on " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"\n{markdown_table(measurements)}")
    if args.json is not None:
        write_json(args.json, as_json(measurements, machine, command))


if __name__ == "__main__":
    run_tool(main)
