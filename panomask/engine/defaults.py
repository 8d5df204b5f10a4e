"""The standard training run, built from a config."""

import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from panomask import distributed
from panomask.checkpoint import DetectionCheckpointer
from panomask.config import CfgNode
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.build import build_detection_test_loader, build_detection_train_loader
from panomask.engine import hooks
from panomask.engine.environment import RandomStates
from panomask.engine.evaluators import build_evaluator
from panomask.engine.keypoint_setup import TrainedKeypoints, match_keypoints
from panomask.engine.launch import create_ddp_model
from panomask.engine.logger import setup_logger
from panomask.engine.precision import InferenceAutocast, inference_autocast
from panomask.engine.result_verification import verify_results
from panomask.engine.results import write_results
from panomask.engine.run_state import DataPosition, HookStates, RecentScalars, ThingClasses, TrainingBuffers
from panomask.engine.semantic_setup import TrainedStuff, match_stuff_classes
from panomask.engine.setup import match_num_classes, put_names_in_tuples, write_held_back_config
from panomask.engine.sheet import ComparisonSheet
from panomask.engine.test_time_augmentation import GeneralizedRCNNWithTTA
from panomask.engine.train_loop import AMPTrainer, HookBase, TrainerBase, build_step_trainer
from panomask.engine.writers import EventWriter, default_writers, rewind_metrics
from panomask.errors import InputError
from panomask.evaluation import DatasetEvaluator, inference_on_dataset
from panomask.modeling import build_model
from panomask.solver import build_lr_scheduler, build_optimizer

logger = logging.getLogger(__name__)


class DefaultTrainer(TrainerBase):
    """Model, optimizer, schedule, loader, checkpoints, evaluation and logs as a config says.

    Override a class method (`build_model`, `build_train_loader`, `build_evaluator`, ...) or `build_hooks` to
    change one of them. A resumed run on the CPU with one process ends with the same bits as an uninterrupted
    one: the checkpoint holds model, optimizer, schedule, iteration, position in the data and generators.

    Attributes:
        scheduler, checkpointer, cfg: as built.
        start_iter, max_iter: the iterations that `train` runs.
    """

    # None in a subclass that calls TrainerBase's constructor instead of ours and sets the rest itself.
    _random_states: RandomStates | None = None
    _recent_scalars: RecentScalars | None = None

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: prepared by `default_setup`. Without that, the number of classes is set here, in place.

        Raises:
            InputError: a class count that disagrees with the data, or anything else that is not supported.
        """
        super().__init__()
        if not logging.getLogger("panomask").isEnabledFor(logging.INFO):
            setup_logger(distributed_rank=distributed.get_rank())
        _settle_data(cfg)
        cfg = DefaultTrainer.auto_scale_workers(cfg, distributed.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = create_ddp_model(model, broadcast_buffers=False)
        self._trainer = build_step_trainer(cfg, model, data_loader, optimizer)
        self._trainer.loss_check_period = cfg.LOG_PERIOD
        self._trainer.register_hooks([_CallAfterBackward(self)])
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.cfg = cfg
        self.max_iter = cfg.SOLVER.MAX_ITER
        self._random_states = RandomStates()
        self._recent_scalars = RecentScalars(self)
        self.checkpointer = self._build_checkpointer(model)
        self.register_hooks(self.build_hooks())

    def _build_checkpointer(self, model: nn.Module) -> DetectionCheckpointer:
        entries: dict[str, Any] = {
            "optimizer": self._trainer.optimizer,
            "scheduler": self.scheduler,
            "data": DataPosition(self),
            "rng": self._random_states,
            "scalars": self._recent_scalars,
            "hooks": HookStates(self),
        }
        if isinstance(self._trainer, AMPTrainer) and self._trainer.grad_scaler.is_enabled():
            entries["grad_scaler"] = self._trainer.grad_scaler
        if len(buffers := TrainingBuffers(model)):
            entries["training_buffers"] = buffers
        names = self.cfg.DATASETS.TRAIN
        classes = MetadataCatalog.get(names[0]).get("thing_classes") if len(names) else None
        if classes:
            entries["thing_classes"] = ThingClasses(classes)
        if len(names) and MetadataCatalog.get(names[0]).get("stuff_classes"):
            entries["stuff"] = TrainedStuff(names[0])
        if self.cfg.MODEL.KEYPOINT_ON and len(names) and names[0] in DatasetCatalog:
            entries["keypoints"] = TrainedKeypoints(names[0])
        return DetectionCheckpointer(model, self.cfg.OUTPUT_DIR, **entries)

    @property
    def model(self) -> nn.Module:
        """The model, wrapped for data parallelism if there are several processes."""
        return self._trainer.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._trainer.model = model

    @property
    def data_loader(self) -> Any:
        """The training loader."""
        return self._trainer.data_loader

    @data_loader.setter
    def data_loader(self, data_loader: Any) -> None:
        self._trainer.data_loader = data_loader

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self._trainer.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        self._trainer.optimizer = optimizer

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or load MODEL.WEIGHTS into the model.

        Args:
            resume: continue if there is a checkpoint; if there is none, training starts from MODEL.WEIGHTS.
        """
        resumes = resume and self.checkpointer.has_checkpoint()
        if resume and not resumes:
            logger.info(f"{self.cfg.OUTPUT_DIR} holds no checkpoint: training starts from the beginning")
        rest = self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resumes:
            if not isinstance(rest.get("iteration"), int):
                raise InputError(
                    f"{self.checkpointer.get_checkpoint_file()}: does not say its iteration, so that a run "
                    "cannot be resumed from it; set MODEL.WEIGHTS to it and leave out --resume"
                )
            self.start_iter = rest["iteration"] + 1
        if resume and distributed.is_main_process():
            write_held_back_config(self.cfg.OUTPUT_DIR)
            rewind_metrics(os.path.join(self.cfg.OUTPUT_DIR, "metrics.json"), self.start_iter)

    def build_hooks(self) -> list[HookBase | None]:
        """The hooks of a run, in order; the last one, in the main process, writes the metrics."""
        cfg = self.cfg
        result: list[HookBase | None] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            self._build_precise_bn(),
            # Before the evaluation, so that nothing is lost if that fails.
            hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD),
        ]

        def test_and_save_results() -> Mapping[str, Any]:
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        if len(cfg.DATASETS.TEST):
            result.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, test_and_save_results))
            if cfg.TEST.SHEET_IMAGES > 0:
                result.append(self._build_sheet())
        result.append(hooks.ProgressBar())
        if distributed.is_main_process():
            result.append(hooks.PeriodicWriter(self.build_writers(), period=cfg.LOG_PERIOD))
        return result

    def _build_precise_bn(self) -> HookBase | None:
        if not (self.cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model)):
            return None
        cfg = _without_workers(self.cfg)  # they would stay alive beside the training's
        return hooks.PreciseBN(
            cfg.TEST.EVAL_PERIOD, self.model, self.build_train_loader(cfg), cfg.TEST.PRECISE_BN.NUM_ITER
        )

    def _build_sheet(self) -> HookBase:
        cfg = _without_workers(self.cfg)
        name = cfg.DATASETS.TEST[0]
        return ComparisonSheet(
            name, lambda: self.build_test_loader(cfg, name), cfg.TEST.SHEET_IMAGES, cfg.OUTPUT_DIR
        )

    def build_writers(self) -> list[EventWriter]:
        """Where the metrics go: console, metrics.json, TensorBoard."""
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self) -> Mapping[str, Any] | None:  # type: ignore[override]
        """Run the iterations that are left.

        Returns:
            The final evaluation's results in the main process, if there is one.
        """
        super().train(self.start_iter, self.max_iter)
        if not distributed.is_main_process() or not hasattr(self, "_last_eval_results"):
            return None
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def before_train(self) -> None:
        super().before_train()
        if self._recent_scalars is not None:
            self._recent_scalars.restore()
        # Made before the generators are restored, since a user's loader may draw numbers when it starts.
        _ = self._trainer._data_loader_iter
        if self._random_states is not None:
            self._random_states.restore()

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model of the config, on its device."""
        model = build_model(cfg)
        num_parameters = sum(p.numel() for p in model.parameters())
        num_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logger.info(
            f"{type(model).__name__} on {cfg.MODEL.DEVICE}: {num_parameters / 1e6:.2f} M parameters, "
            f"{num_trainable / 1e6:.2f} M of them trained"
        )
        logger.debug(f"Model:\n{model}")
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the config."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """The schedule of the config."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Endless batches of DATASETS.TRAIN."""
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Every image of a data set once."""
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator that fits the data set's `evaluator_type`, by default COCO's.

        `panomask.engine.evaluators.EVALUATORS` is the table of them.

        Raises:
            InputError: no evaluator is known for that type.
        """
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> Mapping[str, Any]:
        """Evaluate on DATASETS.TEST; writes OUTPUT_DIR/results.json and results.md. Collective.

        Args:
            cfg: names the data sets.
            model: on its device.
            evaluators: one for each data set; made by `build_evaluator` by default. A data set for which that
                raises NotImplementedError is passed over with a warning, as in Detectron2.

        Returns:
            {task: {metric: number}} in the main process; under the data sets' names if there are several.
        """
        names = list(cfg.DATASETS.TEST)
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(names):
            raise ValueError(f"{len(evaluators)} evaluators for {len(names)} data sets (DATASETS.TEST)")
        results: OrderedDict[str, Any] = OrderedDict()
        if cfg.TEST.PRECISION != "float32":
            model = InferenceAutocast(model, inference_autocast(cfg))
        for i, name in enumerate(names):
            try:
                evaluator = cls.build_evaluator(cfg, name) if evaluators is None else evaluators[i]
            except NotImplementedError as error:
                reason = str(error) or "build_evaluator is not implemented for it"
                logger.warning(f"{name} is not evaluated: {reason}")
                results[name] = {}
                continue
            logger.info(f"Evaluating on {name}")
            results[name] = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
        if distributed.is_main_process() and any(results.values()):
            write_results(cfg.OUTPUT_DIR, results)
        return next(iter(results.values())) if len(results) == 1 else results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> Mapping[str, Any]:
        """`test` with the test-time augmentation of TEST.AUG; its files go to OUTPUT_DIR/TTA. Collective.

        Returns:
            What `test` does, under names like `bbox_TTA`.
        """
        logger.info("Evaluating with test-time augmentation")
        model = GeneralizedRCNNWithTTA(cfg, model)
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "TTA")
        return {f"{name}_TTA": found for name, found in cls.test(cfg, model).items()}

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Scale the schedule from SOLVER.REFERENCE_WORLD_SIZE processes to `num_workers`.

        With k times the processes, batch size and learning rate are multiplied by k, and all numbers of
        iterations divided by it (linear scaling, arXiv:1706.02677). REFERENCE_WORLD_SIZE 0 changes nothing.

        Returns:
            `cfg` itself if nothing changes, else a changed copy.
        """
        reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if reference == 0 or reference == num_workers:
            return cfg
        was_frozen = cfg.is_frozen()
        cfg = cfg.clone()
        cfg.defrost()
        solver = cfg.SOLVER
        if solver.IMS_PER_BATCH % reference:
            raise InputError(
                f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} is no multiple of SOLVER.REFERENCE_WORLD_SIZE "
                f"{reference}; change one of them"
            )
        scale = num_workers / reference
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR = solver.BASE_LR * scale
        solver.MAX_ITER = round(solver.MAX_ITER / scale)
        solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / scale)
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        solver.CHECKPOINT_PERIOD = max(1, round(solver.CHECKPOINT_PERIOD / scale))
        cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / scale)
        solver.REFERENCE_WORLD_SIZE = num_workers
        logger.info(
            f"Schedule scaled from {reference} to {num_workers} processes: {solver.IMS_PER_BATCH} images a "
            f"batch, base learning rate {solver.BASE_LR}, {solver.MAX_ITER} iterations, warm-up over "
            f"{solver.WARMUP_ITERS}"
        )
        if was_frozen:
            cfg.freeze()
        return cfg


def _settle_data(cfg: CfgNode) -> None:
    """What `default_setup` does, for scripts that do not call it; names of no registered data set pass."""
    was_frozen = cfg.is_frozen()
    cfg.defrost()
    try:
        put_names_in_tuples(cfg)
        names = [name for name in cfg.DATASETS.TRAIN if name in DatasetCatalog]
        for note in (
            *match_num_classes(cfg, names),
            *match_stuff_classes(cfg, names),
            *match_keypoints(cfg, names),
        ):
            logger.info(note)
    finally:
        if was_frozen:
            cfg.freeze()


def _without_workers(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


class _CallAfterBackward(HookBase):
    """Passes `after_backward` of the inner trainer on to the hooks of the outer one."""

    def __init__(self, outer: TrainerBase) -> None:
        self._outer = weakref.proxy(outer)

    def after_backward(self) -> None:
        self._outer.after_backward()


def load_for_evaluation(cfg: CfgNode, model: nn.Module, *, resume: bool = False) -> None:
    """Load MODEL.WEIGHTS, or with `resume` the last checkpoint in OUTPUT_DIR, to be evaluated.

    Raises:
        InputError: there is nothing to load, or not all parameters of the model are in the file.
    """
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR)
    path = checkpointer.get_checkpoint_file() if resume else cfg.MODEL.WEIGHTS
    if resume and not path:
        raise InputError(
            f"{cfg.OUTPUT_DIR}: holds no checkpoint to evaluate; set MODEL.WEIGHTS, without --resume"
        )
    if not path:
        raise InputError(
            "MODEL.WEIGHTS is empty: there is nothing to evaluate; set it to a checkpoint, or pass --resume "
            "to evaluate the last one in OUTPUT_DIR"
        )
    checkpointer.load(path, checkpointables=[], match="parameters")
