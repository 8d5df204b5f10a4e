#!/usr/bin/env python
"""Evaluate models of the zoo and print how far they are from the published scores.

Each is evaluated by train_net.py, in a process and in a folder of its own below --output. One that was
evaluated there before, from the same files with the same settings, is not evaluated again. The exit status is
1 if a score is further from the published one than --tolerance, or if an evaluation failed.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from panomask import model_zoo
from panomask.config import get_cfg
from panomask.config.zoo import refuse_python_config
from panomask.engine import run_tool
from panomask.errors import InputError
from panomask.json_file import read_json, write_json

EXAMPLES = """
examples:
  what the zoo publishes for these configs, its weights fetched or taken from the cache:
    %(prog)s COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml configs/COCO-Keypoints/*.yaml --num-gpus 8
  a checkpoint of the zoo on disk; its config follows from its name:
    %(prog)s downloads/model_final_f10217.pkl
  a checkpoint of your own, against the score of that config:
    %(prog)s Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml=output/model_final.pth
  on another data set:
    %(prog)s COCO-Detection/rpn_R_50_C4_1x.yaml --dataset mine \\
      --opts DATASETS.REGISTER.mine.ANNOTATIONS mine.json DATASETS.REGISTER.mine.IMAGES images
"""
TRAIN_NET = Path(__file__).with_name("train_net.py")
RECORD = "verified.json"
FAILED = "failed"
MAIN_METRICS = {"panoptic_seg": "PQ", "sem_seg": "mIoU", "box_proposals": "AR@1000"}
"""Task -> the metric that stands for it; AP for the others."""
Scores = dict[str, dict[str, float | None]]
"""{task: {metric: points of 100}}; None is NaN."""


class Model(NamedTuple):
    """A config with the weights to evaluate; `published` is empty where the zoo says nothing."""

    name: str
    config: str
    weights: str
    published: dict[tuple[str, str], float]

    @property
    def folder(self) -> str:
        return f"{self.name.removesuffix('.yaml')}/{Path(self.weights).stem}"


class Row(NamedTuple):
    """One line of the result; JSON has its fields by these names."""

    config: str
    weights: str
    task: str
    metric: str
    published: float | None
    measured: float | None
    difference: float | None
    verdict: str
    """Either "ok", "differs", "not measured", "nothing published", or why the evaluation failed."""


def main() -> None:
    args = _parse_arguments()
    if args.tolerance < 0:
        raise InputError(f"--tolerance is {args.tolerance}; it takes 0 or more points")
    models = [model for word in args.models if (model := find_model(word)) is not None]
    if not models:
        raise InputError(
            "nothing to evaluate: the zoo publishes no weights for these; give CONFIG=CHECKPOINT"
        )
    rows: list[Row] = []
    for number, model in enumerate(models, start=1):
        print(f"[{number}/{len(models)}] {model.name} with {model.weights}", flush=True)
        try:
            scores = evaluate(model, args)
        except EvaluationError as error:
            rows.append(Row(model.name, model.weights, "", "", None, None, None, f"{FAILED}: {error}"))
        else:
            rows += compare(model, scores, args.tolerance)
    print_table(rows)
    if args.json:
        write_json(args.json, [row._asdict() for row in rows])
    if bad := sum(row.verdict not in ("ok", "nothing published") for row in rows):
        print(
            f"{bad} of {len(rows)} scores are not within {args.tolerance} of the published ones", flush=True
        )
        sys.exit(1)


def print_table(rows: list[Row]) -> None:
    """The rows; why an evaluation failed is too long for a column and follows below them."""
    short = [r._replace(weights=Path(r.weights).name, verdict=r.verdict.partition(":")[0]) for r in rows]
    print(tabulate(short, headers=Row._fields))
    for row in rows:
        if row.verdict.startswith(FAILED):
            print(f"{row.config} {row.verdict}")


def find_model(word: str) -> Model | None:
    """What one word of the command line names: CONFIG, CONFIG=CHECKPOINT or CHECKPOINT.

    Returns None, and says so, for a config for which no weights are given or published.
    """
    config, _, weights = word.partition("=")
    if Path(config).suffix not in (".yaml", ".yml", ".py"):
        config, weights = _config_of_checkpoint(word), word
    refuse_python_config(config)
    file = config if Path(config).is_file() else model_zoo.get_config_file(config)
    name = "/".join(Path(file).resolve().parts[-2:])
    known = model_zoo.zoo_models().get(name)
    if not weights and known is None:
        print(f"{name}: passed over, the zoo publishes no weights for it; CONFIG=CHECKPOINT gives some")
        return None
    return Model(name, file, weights or known.checkpoint, known.scores if known else {})


def _config_of_checkpoint(path: str) -> str:
    """The config of a checkpoint that has a file name of the zoo's, such as model_final_f10217.pkl."""
    names = [m.config for m in model_zoo.zoo_models().values() if Path(m.checkpoint).name == Path(path).name]
    if not names:
        raise InputError(f"{path}: no config file (.yaml) and no file of the zoo; give CONFIG=CHECKPOINT")
    return names[0]


class EvaluationError(Exception):
    """train_net.py could not evaluate a model; the message is its own."""


def evaluate(model: Model, args: argparse.Namespace) -> Scores:
    """The scores of a model on its first test data set, from this run or an earlier one.

    Raises:
        EvaluationError: train_net.py failed; what it said is on standard error.
    """
    folder = Path(args.output) / model.folder
    overrides = ["MODEL.WEIGHTS", model.weights, "OUTPUT_DIR", str(folder), *args.opts]
    if args.dataset:
        overrides += ["DATASETS.TEST", args.dataset]
    cfg = get_cfg()
    cfg.merge_from_file(model.config)
    is_local = Path(model.weights).is_file()
    stamp = Path(model.weights).stat().st_mtime_ns if is_local else None
    task = {"config": cfg.dump(), "overrides": overrides, "weights_changed": stamp}
    record = folder / RECORD
    if record.is_file() and (done := read_json(record)).get("task") == task:
        print(f"evaluated before: {record}")
        return done["scores"]
    command = [sys.executable, str(TRAIN_NET), "--config-file", model.config, "--eval-only"]
    command += ["--num-gpus", str(args.num_gpus), *overrides]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    print(run.stderr, end="", file=sys.stderr, flush=True)
    if run.returncode:
        last = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "")
        raise EvaluationError(last.removeprefix("error: ") or f"exit status {run.returncode}")
    scores = next(iter(read_json(folder / "results.json").values()))
    write_json(record, {"task": task, "scores": scores})
    return scores


def compare(model: Model, scores: Scores, tolerance: float) -> list[Row]:
    """A row for each published score, or for each task's main metric where none is published."""
    rows = []
    metrics: dict[tuple[str, str], Any] = model.published or {
        (task, MAIN_METRICS.get(task, "AP")): None for task in scores
    }
    for (task, metric), published in metrics.items():
        measured = scores.get(task, {}).get(metric)
        difference, verdict = None, "not measured"
        if measured is not None and published is None:
            verdict = "nothing published"
        elif measured is not None:
            difference = round(measured - published, 3)
            verdict = "ok" if abs(difference) <= tolerance else "differs"
        rows.append(Row(model.name, model.weights, task, metric, published, measured, difference, verdict))
    return rows


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="CONFIG, CONFIG=CHECKPOINT, or a CHECKPOINT of the zoo"
    )
    parser.add_argument("--dataset", metavar="NAME", help="evaluate on this one instead of the config's")
    parser.add_argument(
        "--tolerance", type=float, default=0.1, metavar="POINTS", help="default: %(default)s points of 100"
    )
    parser.add_argument("--json", metavar="FILE", help="write the table here too")
    parser.add_argument(
        "--output", default="output/verify_zoo", metavar="FOLDER", help="results; default: %(default)s"
    )
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes for each evaluation")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides")
    return parser.parse_args()


if __name__ == "__main__":
    run_tool(main)
