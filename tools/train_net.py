#!/usr/bin/env python
"""Train, resume or evaluate a model from a config file.

OUTPUT_DIR receives config.yaml, log.txt, metrics.json, TensorBoard files, checkpoints (model_*.pth), and
after the evaluation results.json, results.md, predictions.jpg and the predictions (inference/).
"""

import argparse

from panomask.config import CfgNode, get_cfg
from panomask.distributed import is_main_process
from panomask.engine import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    launch,
    load_for_evaluation,
    refuse_overwriting,
    run_tool,
    verify_results,
)
from panomask.errors import InputError

EXAMPLES = """
examples:
  the quick start, from nothing, on the CPU or one GPU:
    %(prog)s --config-file configs/quickstart/mask_rcnn_shapes.yaml OUTPUT_DIR output/shapes
  go on where it was stopped:
    %(prog)s --config-file configs/quickstart/mask_rcnn_shapes.yaml --resume OUTPUT_DIR output/shapes
  evaluate a checkpoint:
    %(prog)s --config-file output/shapes/config.yaml --eval-only MODEL.WEIGHTS output/shapes/model_final.pth
  your own data in COCO format; the class count comes from the file:
    %(prog)s --config-file configs/quickstart/mask_rcnn_shapes.yaml \\
      DATASETS.REGISTER.mine.ANNOTATIONS mine/annotations.json DATASETS.REGISTER.mine.IMAGES mine/images \\
      DATASETS.TRAIN mine DATASETS.TEST mine OUTPUT_DIR output/mine
  on four GPUs (or four CPU processes), by this script or by torchrun:
    %(prog)s --config-file FILE --num-gpus 4
    torchrun --nproc-per-node 4 %(prog)s --config-file FILE
"""


def setup(args: argparse.Namespace) -> CfgNode:
    """The config of the command line, checked and ready for use."""
    if not args.config_file:
        raise InputError("--config-file is missing; give a YAML file, such as one of those in configs/")
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if not args.eval_only and not args.resume:
        refuse_overwriting(cfg)
    default_setup(cfg, args)
    cfg.freeze()
    return cfg


def main(args: argparse.Namespace) -> None:
    """What every process of the run does."""
    cfg = setup(args)
    if args.eval_only:
        evaluate(cfg, resume=args.resume)
        return
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def evaluate(cfg: CfgNode, *, resume: bool) -> None:
    """Evaluate a checkpoint on DATASETS.TEST."""
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: there is nothing to evaluate on; name a data set")
    model = DefaultTrainer.build_model(cfg)
    load_for_evaluation(cfg, model, resume=resume)
    results = DefaultTrainer.test(cfg, model)
    if is_main_process():
        verify_results(cfg, results)


def run() -> None:
    """Parse the command line and start the processes."""
    parser = default_argument_parser(EXAMPLES)
    parser.description = __doc__
    args = parser.parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


if __name__ == "__main__":
    run_tool(run)
