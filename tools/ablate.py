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
import os
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
    %(prog)s --table output/ablations/table_2c

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
        "--output", type=Path, metavar="FOLDER", help="folder of the runs (default: output/ablations/NAME)"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides for all runs")
    return parser.parse_intermixed_args()


def build_sweep(args: argparse.Namespace) -> Sweep:
    """The sweep of the file, changed as the command line says."""
    sweep = with_overrides(read_sweep(args.sweep), args.opts)
    if args.base:
        own = [choice.base for axis in sweep.axes for choice in axis.choices if choice.base]
        if own:
            raise InputError(
                f"--base {args.base}: choices of {args.sweep} name base configs of their own ({own[0]})"
            )
        if not Path(args.base).is_file():
            raise InputError(f"--base {args.base}: no such file")
        sweep = replace(sweep, base=args.base)
    if args.seeds:
        words = args.seeds.split(",")
        sweep = replace(sweep, seeds=check_seeds([int(w) if w.isdigit() else w for w in words], "--seeds"))
    return sweep


def default_command() -> list[str]:
    """This Python, and the train_net.py beside this file."""
    script = Path(__file__).with_name("train_net.py").resolve()
    here = Path.cwd()
    return [sys.executable, str(script.relative_to(here) if script.is_relative_to(here) else script)]


def describe(runs: Sequence[Run], command: Sequence[str]) -> str:
    """The runs with their states and commands, as text."""
    lines = []
    for run in runs:
        lines += [f"{run.name}: {run.state()}", f"  {shlex.join([*command, *run.arguments()])}"]
    num_done = sum(run.state() == "done" for run in runs)
    return "\n".join([*lines, f"{len(runs)} runs, {num_done} of them done"])


def main() -> None:
    args = parse_args()
    if (args.sweep is None) == (args.table is None):
        raise InputError("give a sweep file to run, or --table FOLDER to make its tables again (see --help)")
    if args.jobs < 1 or args.gpus_per_job < 0:
        raise InputError(f"--jobs {args.jobs} --gpus-per-job {args.gpus_per_job}: at least 1, and at least 0")
    setup_logger(name="panomask")
    if args.table is not None:
        require_ablation_packages()
        report(args.table)
        return
    sweep = replace(build_sweep(args), command=shlex.join(["python", *sys.argv]))
    output = args.output or Path("output") / "ablations" / args.sweep.stem
    command = shlex.split(args.command) if args.command else default_command()
    runs = plan_runs(sweep, output)
    if args.dry_run:
        print(describe(runs, command))
        return
    require_ablation_packages()
    os.makedirs(output, exist_ok=True)
    write_sweep(sweep, output)
    failed = execute(runs, command=command, jobs=args.jobs, gpus_per_job=args.gpus_per_job)
    report(output)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(runs)} runs failed, the first of them {failed[0].name} (see"
            f" {failed[0].folder / 'console.txt'}); the same command tries them again"
        )


def report(folder: Path) -> None:
    """Write tables, plot and page of a sweep, and print the table."""
    files = write_report(collect(folder), folder)
    for name in ("scores.md", "cost.md"):
        print((folder / name).read_text(encoding="utf-8"))
    logger.info(f"Written: {', '.join(map(str, files))}")


if __name__ == "__main__":
    run_tool(main)
