#!/usr/bin/env python
"""Run an ablation: change one thing, keep everything else, and make the table.

A sweep file names a base config, axes of choices (each a name and what it sets), and seeds. Every
combination is trained with every seed, in a folder of its own below the output folder. The tables (Markdown,
LaTeX, CSV), the plot and the page index.html are written there at the end; --table makes them again from the
folders alone.
Started again, the sweep goes on where it was stopped: what is done stays, what was interrupted is resumed,
and what failed is tried again.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from panomask.ablation import (
    Run,
    Sweep,
    check_seeds,
    collect,
    execute,
    locked_folder,
    plan_runs,
    read_sweep,
    require_ablation_packages,
    with_overrides,
    write_report,
    write_sweep,
)
from panomask.engine import run_tool, setup_logger
from panomask.errors import InputError

logger = logging.getLogger("panomask.ablate")

_SWEEP = "projects/roi_ablation/table_2c.yaml"
EXAMPLES = f"""
examples:
  what would run, and how:
    %(prog)s {_SWEEP} --dry-run
  two runs at a time:
    %(prog)s {_SWEEP} --jobs 2
  the same sweep on COCO, one run at a time on eight GPUs:
    %(prog)s {_SWEEP} --base configs/COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml \\
      --command "python tools/train_net.py --num-gpus 8" --seeds 1 --output output/table_2c_coco
  four runs at a time, each on two GPUs of its own, its processes started by torchrun:
    %(prog)s FILE --jobs 4 --gpus-per-job 2 \\
      --command "torchrun --standalone --nproc-per-node 2 tools/train_net.py"
  under Slurm, twenty runs at a time, each on a node of eight GPUs:
    %(prog)s FILE --jobs 20 \\
      --command "srun --nodes 1 --gpus 8 --cpus-per-task 64 python tools/train_net.py --num-gpus 8"
  the tables again, from the folders of the runs:
    %(prog)s --table output/ablations/roi_ablation/table_2c

a sweep file:
  title: RoI pooling
  base: configs/mask_rcnn_C4_shapes.yaml   # paths are relative to the sweep file
  axes:
    pooling:
      RoIPool:  {{MODEL.ROI_BOX_HEAD.POOLER_TYPE: ROIPool}}
      RoIAlign: {{MODEL.ROI_BOX_HEAD.POOLER_TYPE: ROIAlignV2}}
  baseline: {{pooling: RoIPool}}             # by default the first choice of each axis
  seeds: [1, 2, 3]
  metrics: [segm/AP, segm/AP75]            # by default the AP, PQ or mIoU of each task
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="make the tables of this sweep again")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their commands, and end")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--gpus-per-job",
        type=int,
        default=0,
        metavar="N",
        help="GPUs of its own for each run (default: it sees all)",
    )
    parser.add_argument(
        "--command",
        metavar="WORDS",
        help="what starts a training, in front of --config-file (default: python tools/train_net.py)",
    )
    parser.add_argument("--base", metavar="FILE", help="base config in place of the sweep's")
    parser.add_argument("--seeds", metavar="N,N,...", help="seeds in place of the sweep's")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of the runs and tables (default: output/ablations/X/Y of a sweep file X/Y.yaml)",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides for all runs")
    return parser.parse_intermixed_args()


def build_sweep(args: argparse.Namespace) -> Sweep:
    """The sweep of the file, changed as the command line says."""
    sweep = with_overrides(read_sweep(args.sweep), args.opts)
    if args.base is not None:
        own = [choice.base for axis in sweep.axes for choice in axis.choices if choice.base]
        if own:
            raise InputError(
                f"--base {args.base}: choices of {args.sweep} name base configs of their own ({own[0]})"
            )
        if not Path(args.base).is_file():
            raise InputError(f"--base {args.base}: no such file")
        sweep = replace(sweep, base=args.base)
    if args.seeds is not None:
        words = args.seeds.split(",")
        seeds = check_seeds([int(word) if word.isdecimal() else word for word in words], "--seeds")
        sweep = replace(sweep, seeds=seeds)
    return replace(sweep, command=shlex.join(["python", *sys.argv]))


def build_command(words: str | None) -> list[str]:
    """What --command says; by default this Python, and the train_net.py beside this file."""
    if words is None:
        script, here = Path(__file__).with_name("train_net.py").resolve(), Path.cwd()
        return [sys.executable, str(script.relative_to(here) if script.is_relative_to(here) else script)]
    try:
        command = shlex.split(words)
    except ValueError as error:
        raise InputError(f"--command {words!r}: {str(error).lower()}") from error
    if not command:
        raise InputError("--command is empty; give what starts a training, such as python tools/train_net.py")
    return command


def output_folder(args: argparse.Namespace) -> Path:
    """Where the sweep's runs and tables go."""
    output = args.output or Path("output", "ablations", args.sweep.resolve().parent.name, args.sweep.stem)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; name a folder")
    return output


def describe(runs: Sequence[Run], command: Sequence[str]) -> str:
    """The runs with their states and commands, as text."""
    lines = []
    for run in runs:
        lines += [f"{run.name}: {run.state()}", f"  {shlex.join([*command, *run.arguments()])}"]
    num_done = sum(run.state() == "done" for run in runs)
    return "\n".join([*lines, f"{len(runs)} runs, {num_done} of them done"])


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError for arguments that do not go together."""
    if (args.sweep is None) == (args.table is None):
        raise InputError("give a sweep file to run, or --table FOLDER to make its tables again (see --help)")
    if args.jobs < 1 or args.gpus_per_job < 0:
        raise InputError(f"--jobs {args.jobs} --gpus-per-job {args.gpus_per_job}: at least 1, and at least 0")
    others = [args.command, args.base, args.seeds, args.output, args.dry_run or None, args.opts or None]
    if args.table is not None and any(value is not None for value in others):
        raise InputError(
            "--table makes the tables of what has run; nothing else of a command line goes with it"
        )


def main() -> None:
    args = parse_args()
    check_arguments(args)
    setup_logger(name="panomask")
    if args.table is not None:
        require_ablation_packages()
        report(args.table)
        return
    sweep, output, command = build_sweep(args), output_folder(args), build_command(args.command)
    runs = plan_runs(sweep, output)
    if args.dry_run:
        print(describe(runs, command))
        return
    require_ablation_packages()
    try:
        with locked_folder(output):
            write_sweep(sweep, output)
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be written to ({error.strerror}); name another"
        ) from error
    failed = execute(runs, command=command, jobs=args.jobs, gpus_per_job=args.gpus_per_job)
    report(output)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(runs)} runs failed, the first of them {failed[0].name} (see"
            f" {failed[0].folder / 'console.txt'}); the same command tries them again"
        )


def report(folder: Path) -> None:
    """Write tables, plot and page of a sweep, and print the tables."""
    if not folder.is_dir():
        raise InputError(f"--table {folder}: no such folder; give the folder that a sweep was run in")
    with locked_folder(folder):
        files = write_report(collect(folder), folder)
    for name in ("scores.md", "cost.md"):
        print((folder / name).read_text(encoding="utf-8"))
    logger.info(f"Written to {folder}: {', '.join(file.name for file in files)}")


if __name__ == "__main__":
    run_tool(main)
