import argparse
import json
import weakref

import pytest
import torch

from panomask.checkpoint import DetectionCheckpointer
from panomask.config import CfgNode, get_cfg
from panomask.data import MetadataCatalog
from panomask.engine import (
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    default_setup,
    hooks,
    load_for_evaluation,
)
from panomask.engine.setup import register_datasets
from panomask.engine.train_loop import AMPTrainer
from panomask.errors import InputError
from panomask.evaluation import COCOEvaluator, DatasetEvaluator


@pytest.fixture
def config(tiny_run, tmp_path):
    """Builds prepared configs of the tiny run; `out` names the output folder."""

    def build(*opts, out: str = "out", eval_only: bool = False) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(tiny_run))
        cfg.merge_from_list([*opts, "OUTPUT_DIR", str(tmp_path / out)])
        default_setup(cfg, argparse.Namespace(eval_only=eval_only))
        cfg.freeze()
        return cfg

    return build


class Killed(HookBase):
    """Stands in for a kill: after iteration `at`, nothing is saved or written any more."""

    def __init__(self, at: int):
        self.at = at

    def before_step(self):
        if self.trainer.iter == self.at:
            raise ConnectionAbortedError


def train(cfg: CfgNode, *, resume: bool = False, kill_at: int = -1) -> DefaultTrainer:
    trainer = DefaultTrainer(cfg)
    trainer.register_hooks([Killed(kill_at)])
    trainer.resume_or_load(resume=resume)
    if kill_at >= 0:
        with pytest.raises(ConnectionAbortedError):
            trainer.train()
    else:
        trainer.train()
    return trainer


def metrics(cfg: CfgNode) -> list[dict]:
    """The lines of metrics.json without what depends on the clock and on what the process did before."""
    with open(f"{cfg.OUTPUT_DIR}/metrics.json") as file:
        lines = [json.loads(line) for line in file]
    changing = ("eta_seconds", "max_mem")
    return [{k: v for k, v in line.items() if "time" not in k and k not in changing} for line in lines]


def final_weights(cfg: CfgNode) -> dict:
    return torch.load(f"{cfg.OUTPUT_DIR}/model_final.pth", weights_only=True)["model"]


RETINANET = ("SEED", 3, "MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.NUM_CONVS", 1)
RETINANET += ("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone")
RETINANET += ("MODEL.ROI_HEADS.NAME", "GivenBoxROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4"])


@pytest.mark.parametrize(
    "opts",
    [("SEED", 3), ("SEED", 3, "DATALOADER.NUM_WORKERS", 2), RETINANET],
    ids=["main", "workers", "retinanet"],
)
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(config, opts):
    whole = config(*opts, "TEST.EVAL_PERIOD", 3, out="whole")
    train(whole)
    for kill_at in (1, 4):
        cfg = config(*opts, "TEST.EVAL_PERIOD", 3, out=f"killed{kill_at}")
        train(cfg, kill_at=kill_at)
        torch.manual_seed(99)  # whatever else happened in between
        train(config(*opts, "TEST.EVAL_PERIOD", 3, out=f"killed{kill_at}"), resume=True)
        expected, found = final_weights(whole), final_weights(cfg)
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        assert metrics(cfg) == metrics(whole)


def test_a_run_without_a_seed_goes_on_where_it_was(config, tmp_path):
    opts = ("SEED", -1, "DATASETS.TEST", (), "TEST.EVAL_PERIOD", 5)
    opts += ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)
    train(config(*opts))
    expected = final_weights(config(*opts))
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000002.pth")
    trainer = train(config(*opts), resume=True)
    assert trainer.start_iter == 3
    found = final_weights(trainer.cfg)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_best_checkpoint_of_the_last_evaluation_knows_its_place_in_the_data(config):
    cfg = config("SOLVER.MAX_ITER", 2)

    class Trainer(DefaultTrainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return {"score": 1.0}

        def build_hooks(self):
            return [*super().build_hooks(), hooks.BestCheckpointer(0, self.checkpointer, "score")]

    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.train() == {"score": 1.0}
    best = torch.load(f"{cfg.OUTPUT_DIR}/model_best.pth", weights_only=True)
    assert (best["iteration"], best["data"]["batches"]) == (1, 2)


def test_contents_of_a_checkpoint(config):
    cfg = config("DATASETS.TEST", (), "SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    train(cfg)
    checkpoint = torch.load(f"{cfg.OUTPUT_DIR}/model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 1
    assert checkpoint["thing_classes"] == ["a", "b"]
    assert {"model", "optimizer", "scheduler", "data", "rng"} <= set(checkpoint)
    assert len(checkpoint["rng"]["ranks"]) == 1


def test_resume_without_a_checkpoint_starts_from_the_beginning(config, tmp_path):
    trainer = DefaultTrainer(config("DATASETS.TEST", ()))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert "starts from the beginning" in (tmp_path / "out" / "log.txt").read_text()


def test_resuming_a_finished_run_evaluates_again(config, tmp_path):
    train(config("SOLVER.MAX_ITER", 2))
    (tmp_path / "out" / "results.json").unlink()
    trainer = train(config("SOLVER.MAX_ITER", 2), resume=True)
    assert trainer.start_iter == 2
    assert (tmp_path / "out" / "results.json").exists()


def test_resuming_with_other_classes_is_refused(config, tiny_run, tmp_path):
    train(config("DATASETS.TEST", (), "SOLVER.MAX_ITER", 1))
    document = json.loads((tmp_path / "tiny.json").read_text())
    document["categories"][1]["name"] = "z"
    (tmp_path / "tiny.json").write_text(json.dumps(document))
    cfg = config("DATASETS.TEST", (), "DATASETS.ON_BAD_ANNOTATION", "drop")  # registers anew
    with pytest.raises(InputError, match=r"classes a, b, but DATASETS\.TRAIN has a, z"):
        DefaultTrainer(cfg).resume_or_load(resume=True)


def test_evaluation_writes_predictions_results_and_table(config, tmp_path):
    trainer = train(
        config("SOLVER.MAX_ITER", 1, "TEST.SHEET_IMAGES", 2, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    )
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    assert set(results["tiny"]) == {"bbox", "segm"}
    assert results["tiny"]["bbox"]["AP"] == trainer._last_eval_results["bbox"]["AP"]
    assert "AP-b" in results["tiny"]["segm"]
    assert (out / "results.md").read_text().startswith("tiny")
    assert (out / "inference" / "tiny" / "coco_instances_results.json").stat().st_size > 2
    assert (out / "predictions.jpg").stat().st_size > 0
    assert metrics(trainer.cfg)[-1]["iteration"] == 1


def test_several_test_sets_with_evaluators_of_ones_own(config):
    class Counter(DatasetEvaluator):
        def reset(self):
            self.images = 0

        def process(self, inputs, outputs):
            self.images += len(inputs)

        def evaluate(self):
            return {"count": {"images": float(self.images)}}

    cfg = config("DATASETS.TEST", ("tiny", "tiny"))
    model = DefaultTrainer.build_model(cfg)
    with pytest.raises(ValueError, match="1 evaluators for 2"):
        DefaultTrainer.test(cfg, model, Counter())
    assert DefaultTrainer.test(config(), model, [Counter()]) == {"count": {"images": 6.0}}


def test_evaluation_in_the_precision_of_the_config(config):
    seen = set()

    class Nothing(DatasetEvaluator):
        pass

    for precision in ("float32", "bfloat16"):
        cfg = config("TEST.PRECISION", precision)
        model = DefaultTrainer.build_model(cfg)
        model.backbone.register_forward_hook(
            lambda _, __, maps, precision=precision: seen.add((precision, next(iter(maps.values())).dtype))
        )
        DefaultTrainer.test(cfg, model, [Nothing()])
        assert model.training
    assert seen == {("float32", torch.float32), ("bfloat16", torch.bfloat16)}


def test_data_registered_in_python_is_scored_by_coco(config):
    MetadataCatalog.get("of_python").set(thing_classes=["a"])
    assert isinstance(DefaultTrainer.build_evaluator(config(), "of_python"), COCOEvaluator)
    MetadataCatalog.remove("of_python")


def test_unknown_evaluator_type_is_named(config):
    MetadataCatalog.get("odd").set(evaluator_type="odd")
    with pytest.raises(InputError, match="'odd' has evaluator_type 'odd'"):
        DefaultTrainer.build_evaluator(config(), "odd")
    MetadataCatalog.remove("odd")


def test_a_data_set_without_an_evaluator_is_passed_over(config, capsys):
    class Trainer(DefaultTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            raise NotImplementedError("no evaluator here")

    cfg = config()
    assert Trainer.test(cfg, Trainer.build_model(cfg)) == {}
    assert "tiny is not evaluated: no evaluator here" in capsys.readouterr().out


def test_classes_are_those_of_the_data_without_default_setup(tiny_run):
    cfg = get_cfg()
    cfg.merge_from_file(str(tiny_run))
    register_datasets(cfg)
    cfg.DATASETS.TRAIN = "tiny"  # not a tuple: common in research code
    trainer = DefaultTrainer(cfg)
    assert cfg.DATASETS.TRAIN == ("tiny",)
    assert trainer.model.roi_heads.num_classes == cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    with pytest.raises(InputError, match=r"NUM_CLASSES is 1, but data set tiny has 2 classes"):
        DefaultTrainer(cfg)


def test_a_subclass_may_set_up_everything_itself(config):
    """As research code does that replaces the checkpointer or the inner trainer."""

    class Trainer(DefaultTrainer):
        def __init__(self, cfg):
            TrainerBase.__init__(self)
            self.cfg, self.max_iter = cfg, cfg.SOLVER.MAX_ITER
            model = self.build_model(cfg)
            optimizer = self.build_optimizer(cfg, model)
            self._trainer = SimpleTrainer(model, self.build_train_loader(cfg), optimizer)
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
            self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
            self.register_hooks(self.build_hooks())

    for resume, iterations in ((False, 2), (True, 4)):
        trainer = Trainer(config("SOLVER.MAX_ITER", iterations, "DATASETS.TEST", ()))
        trainer.resume_or_load(resume=resume)
        assert trainer.start_iter == iterations - 2
        trainer.train()


def test_weights_to_evaluate_must_exist_and_be_complete(config, tmp_path):
    cfg = config(eval_only=True)
    model = DefaultTrainer.build_model(cfg)
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS is empty"):
        load_for_evaluation(cfg, model)
    with pytest.raises(InputError, match="no checkpoint"):
        load_for_evaluation(cfg, model, resume=True)
    state = model.state_dict()
    torch.save({"model": {k: v for k, v in state.items() if "mask_head" not in k}}, tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"not in the file, first roi_heads\.mask_head"):
        load_for_evaluation(config("MODEL.WEIGHTS", str(tmp_path / "part.pth")), model)


def test_expected_results_are_verified(config):
    good = config("SOLVER.MAX_ITER", 1, "TEST.EXPECTED_RESULTS", [["bbox", "AP", 50.0, 50.0]])
    train(good)
    bad = config("SOLVER.MAX_ITER", 1, "TEST.EXPECTED_RESULTS", [["bbox", "AP", 150.0, 1.0]], out="bad")
    with pytest.raises(SystemExit):
        train(bad)


def test_mixed_precision_and_precise_batch_norm_on_the_cpu(config):
    opts = ("SOLVER.AMP.ENABLED", True, "TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1)
    trainer = train(config(*opts, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", ()))
    assert isinstance(trainer._trainer, AMPTrainer)
    saved = torch.load(f"{trainer.cfg.OUTPUT_DIR}/model_final.pth", weights_only=True)
    assert "grad_scaler" not in saved  # bfloat16 needs no scale


def test_keypoints_are_learnt_and_scored(config, tmp_path):
    """Two keypoints, whose number, names and sigmas are the file's; one object in two has them."""
    path = tmp_path / "tiny.json"
    document = json.loads(path.read_text())
    for category in document["categories"]:
        category |= {"keypoints": ["left_end", "right_end"], "sigmas": [0.1, 0.1]}
    for annotation in document["annotations"][::2]:
        x, y, *_ = annotation["bbox"]
        annotation |= {"keypoints": [x + 5, y + 5, 2, x + 25, y + 5, 1], "num_keypoints": 2}
    path.write_text(json.dumps(document))
    opts = ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8], "TEST.SHEET_IMAGES", 2)
    trainer = train(config(*opts, "SOLVER.MAX_ITER", 2))
    assert final_weights(trainer.cfg)["roi_heads.keypoint_head.score_lowres.weight"].shape == (8, 2, 4, 4)
    assert all("loss_keypoint" in line for line in metrics(trainer.cfg)[:2])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tiny"]["keypoints"]["AP"] is not None
    assert (tmp_path / "out" / "predictions.jpg").is_file()


def test_hooks_of_the_outer_trainer_see_the_backward_pass(config):
    class Gradients(HookBase):
        seen = 0

        def after_backward(self):
            self.seen += next(self.trainer.model.parameters()).grad is not None

    trainer, hook = DefaultTrainer(config("DATASETS.TEST", (), "SOLVER.MAX_ITER", 2)), Gradients()
    trainer.register_hooks([hook])
    trainer.train()
    assert hook.seen == 2


def test_auto_scale_workers():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 16, "SOLVER.BASE_LR", 0.1, "SOLVER.MAX_ITER", 5000])
    cfg.merge_from_list(["SOLVER.STEPS", (4000,), "SOLVER.WARMUP_ITERS", 100, "TEST.EVAL_PERIOD", 50])
    assert DefaultTrainer.auto_scale_workers(cfg, 16) is cfg
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 16)
    assert scaled.is_frozen()
    assert (scaled.SOLVER.IMS_PER_BATCH, scaled.SOLVER.BASE_LR, scaled.SOLVER.MAX_ITER) == (32, 0.2, 2500)
    assert (scaled.SOLVER.STEPS, scaled.SOLVER.WARMUP_ITERS, scaled.TEST.EVAL_PERIOD) == ((2000,), 50, 25)
    assert scaled.SOLVER.CHECKPOINT_PERIOD == 2500
    assert scaled.SOLVER.REFERENCE_WORLD_SIZE == 16
    assert cfg.SOLVER.IMS_PER_BATCH == 16
