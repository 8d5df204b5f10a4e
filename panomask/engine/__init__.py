"""Training and evaluation runs: processes, loop, hooks, logs, and the standard trainer."""

import warnings

with warnings.catch_warnings():
    # Its import compiles losses that nobody here uses, by a function that newer torch warns about.
    warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
    import fvcore.nn  # noqa: F401

from panomask.engine import hooks
from panomask.engine.arguments import default_argument_parser, run_tool
from panomask.engine.defaults import DefaultTrainer, load_for_evaluation
from panomask.engine.environment import TORCH_VERSION, collect_env_info, seed_all_rng
from panomask.engine.evaluators import check_data_sets
from panomask.engine.hooks import (
    BestCheckpointer,
    CallbackHook,
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
)
from panomask.engine.launch import DEFAULT_TIMEOUT, create_ddp_model, launch
from panomask.engine.logger import (
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)
from panomask.engine.predictor import DefaultPredictor
from panomask.engine.project import add_project, load_config
from panomask.engine.registration import register_datasets
from panomask.engine.result_verification import verify_results
from panomask.engine.setup import default_setup, match_num_classes, refuse_overwriting
from panomask.engine.test_time_augmentation import DatasetMapperTTA, GeneralizedRCNNWithTTA
from panomask.engine.train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from panomask.engine.writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardWriter,
    TensorboardXWriter,
    default_writers,
)

__all__ = [
    "DEFAULT_TIMEOUT",
    "TORCH_VERSION",
    "AMPTrainer",
    "BestCheckpointer",
    "CallbackHook",
    "CommonMetricPrinter",
    "DatasetMapperTTA",
    "DefaultPredictor",
    "DefaultTrainer",
    "EvalHook",
    "EventWriter",
    "GeneralizedRCNNWithTTA",
    "HookBase",
    "IterationTimer",
    "JSONWriter",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "SimpleTrainer",
    "TensorboardWriter",
    "TensorboardXWriter",
    "TrainerBase",
    "add_project",
    "check_data_sets",
    "collect_env_info",
    "create_ddp_model",
    "create_small_table",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "hooks",
    "launch",
    "load_config",
    "load_for_evaluation",
    "log_every_n",
    "log_every_n_seconds",
    "log_first_n",
    "match_num_classes",
    "refuse_overwriting",
    "register_datasets",
    "run_tool",
    "seed_all_rng",
    "setup_logger",
    "verify_results",
]
