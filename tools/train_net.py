#!/usr/bin/env python
"""Train, resume or evaluate a model from a config file.

OUTPUT_DIR receives config.yaml, log.txt, metrics.json, TensorBoard files, checkpoints (model_*.pth), and
after the evaluation results.json, results.md, predictions.jpg and the predictions (inference/).
"""

import argparse
from collections.abc import Mapping
from typing import Any

from panomask.config import CfgNode
from panomask.distributed import is_main_process
from panomask.engine import (
    DefaultTrainer,
    EvalHook,
    GeneralizedRCNNWithTTA,
    HookBase,
    check_data_sets,
    default_argument_parser,
    default_setup,
    launch,
    load_config,
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
  your own panoptic data; things, stuff and their counts come from the file:
    %(prog)s --config-file configs/quickstart/panoptic_fpn_shapes.yaml \\
      DATASETS.REGISTER.mine.ANNOTATIONS mine/panoptic.json DATASETS.REGISTER.mine.IMAGES mine/images \\
      DATASETS.REGISTER.mine.PANOPTIC_ROOT mine/panoptic DATASETS.TRAIN mine DATASETS.TEST mine \\
      OUTPUT_DIR output/mine
  by test-time augmentation too, to OUTPUT_DIR/TTA:
    %(prog)s --config-file FILE --eval-only MODEL.WEIGHTS model_final.pth TEST.AUG.ENABLED True
  proposals of a trained RPN for Fast R-CNN, to OUTPUT_DIR/inference/NAME/box_proposals.pkl:
    %(prog)s --config-file configs/COCO-Detection/rpn_R_50_FPN_1x.yaml --eval-only \\
      MODEL.WEIGHTS rpn.pth DATASETS.TEST coco_2017_train,coco_2017_val
  on four GPUs (or four CPU processes), by this script or by torchrun:
    %(prog)s --config-file FILE --num-gpus 4
    torchrun --nproc-per-node 4 %(prog)s --config-file FILE
"""


def setup(args: argparse.Namespace) -> CfgNode:
    """The config of the command line, checked and ready for use."""
    if not args.config_file:
        raise InputError("--config-file is missing; give a YAML file, such as one of those in configs/")
    cfg = load_config(args.config_file, args.opts)
    if not args.eval_only and not args.resume:
        refuse_overwriting(cfg)
    default_setup(cfg, args)
    check_data_sets(cfg, eval_only=args.eval_only)
    cfg.freeze()
    return cfg


class Trainer(DefaultTrainer):
    """The standard trainer; with TEST.AUG.ENABLED it also evaluates by test-time augmentation at the end."""

    def build_hooks(self) -> list[HookBase | None]:
        found = super().build_hooks()
        if not (self.cfg.TEST.AUG.ENABLED and self.cfg.DATASETS.TEST):
            return found
        GeneralizedRCNNWithTTA(self.cfg, self.model)  # a model that it is not for is refused before training

        def test_with_augmentation() -> Mapping[str, Any]:
            augmented = self.test_with_TTA(self.cfg, self.model)
            self._last_eval_results = {**self._last_eval_results, **augmented}
            return augmented

        after = max(i for i, hook in enumerate(found) if isinstance(hook, EvalHook)) + 1
        return [*found[:after], EvalHook(0, test_with_augmentation), *found[after:]]


def main(args: argparse.Namespace) -> None:
    """What every process of the run does."""
    cfg = setup(args)
    if args.eval_only:
        evaluate(cfg, resume=args.resume)
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def evaluate(cfg: CfgNode, *, resume: bool) -> None:
    """Evaluate a checkpoint on DATASETS.TEST."""
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: there is nothing to evaluate on; name a data set")
    model = Trainer.build_model(cfg)
    load_for_evaluation(cfg, model, resume=resume)
    if cfg.TEST.AUG.ENABLED:
        GeneralizedRCNNWithTTA(cfg, model)  # a model that it is not for is refused before the evaluation
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results = {**results, **Trainer.test_with_TTA(cfg, model)}
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
