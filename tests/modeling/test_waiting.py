"""What a training step waits for: on a GPU each of these empties the queue of work.

Every model here is trained on a stand-in for a GPU, which notes the calls that would wait, and must come to
the losses of the CPU. The lists below are all there is; a new entry needs a reason, beside it.
"""

import importlib.util
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from panomask.config import CfgNode
from panomask.engine.hooks import IterationTimer, LRScheduler, PeriodicWriter
from panomask.engine.train_loop import SimpleTrainer
from panomask.engine.writers import CommonMetricPrinter, JSONWriter
from panomask.event_storage import EventStorage
from panomask.modeling import build_model
from panomask.modeling.poolers import ROIPooler
from panomask.modeling.proposal_generator import proposal_utils, rpn
from panomask.modeling.roi_heads import roi_heads
from panomask.solver import build_optimizer
from panomask.structures import BitMasks, Boxes, Instances, PolygonMasks

NUM_IMAGES = 2

PROPOSALS = {
    # The number of boxes that NMS keeps is the size of its result.
    ("nms", "suppression.py:batched_nms"): NUM_IMAGES,
    # How many of them are valid, and whether the training diverged: all images in one transfer.
    ("copy to the host", "proposal_utils.py:find_top_rpn_proposals"): 1,
}
SAMPLES = {
    # A sample may be smaller than asked for, and projects draw their own, image by image.
    ("nonzero", "sampling.py:subsample_indices"): NUM_IMAGES,
    # How many RoIs each level pools.
    ("copy to the host", "poolers.py:forward"): 1,
}
FOREGROUND = {
    # How many RoIs are foreground, which is the size of a head's input: all images in one transfer.
    ("copy to the host", "roi_heads.py:select_foreground_proposals"): 1,
    ("copy to the host", "poolers.py:forward"): 1,
}
POLYGONS = {
    # Polygons stay on the host: whose, and where, must come to it, and their grids must leave it.
    ("copy to the host", "masks.py:__getitem__"): NUM_IMAGES,
    ("copy to the host", "masks.py:crop_and_resize"): NUM_IMAGES,
    ("copy to the device", "masks.py:crop_and_resize"): NUM_IMAGES,
}
VISIBLE = {
    # RoIs that hold no keypoint are no input of the keypoint head.
    ("nonzero", "instances.py:__getitem__"): NUM_IMAGES,
}

CASCADE = {
    # The two later stages leave out the boxes that clipping made empty, and pool the rest.
    ("index by a mask", "boxes.py:__getitem__"): 2 * NUM_IMAGES,
    ("copy to the host", "poolers.py:forward"): 2,
}

TINY_RETINANET = """
    MODEL.META_ARCHITECTURE RetinaNet  MODEL.MASK_ON False  MODEL.RETINANET.NUM_CLASSES 3
    MODEL.BACKBONE.NAME build_retinanet_resnet_fpn_backbone  MODEL.FPN.IN_FEATURES ['res3','res4','res5']
    MODEL.RESNETS.OUT_FEATURES ['res3','res4','res5']  MODEL.ANCHOR_GENERATOR.SIZES [[8],[16],[32],[64],[128]]
""".split()
TINY_FCOS = """
    MODEL.META_ARCHITECTURE FCOS  MODEL.MASK_ON False  MODEL.FCOS.NUM_CLASSES 3
    MODEL.FCOS.NORM ''  MODEL.BACKBONE.NAME build_fcos_resnet_fpn_backbone
    MODEL.FPN.IN_FEATURES ['res3','res4','res5']  MODEL.RESNETS.OUT_FEATURES ['res3','res4','res5']
""".split()

MODELS: dict[str, tuple[list[Any], list[dict[tuple[str, str], int]]]] = {
    "mask_rcnn": ([], [PROPOSALS, SAMPLES, FOREGROUND, POLYGONS]),
    "mask_rcnn_of_bitmasks": (["INPUT.MASK_FORMAT", "bitmask"], [PROPOSALS, SAMPLES, FOREGROUND]),
    "faster_rcnn": (["MODEL.MASK_ON", False], [PROPOSALS, SAMPLES]),
    "keypoint_rcnn": (
        ["MODEL.MASK_ON", False, "MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8]],
        [PROPOSALS, SAMPLES, FOREGROUND, VISIBLE],
    ),
    "panoptic_fpn": (
        ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4],
        [PROPOSALS, SAMPLES, FOREGROUND, POLYGONS],
    ),
    "cascade_mask_rcnn": (
        ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
        [PROPOSALS, SAMPLES, CASCADE, FOREGROUND, POLYGONS],
    ),
    "retinanet": (TINY_RETINANET, []),
    "fcos": (TINY_FCOS, []),
}


@pytest.fixture(scope="module")
def stand_in() -> ModuleType:
    """The module device_stand_in.py beside this file."""
    path = Path(__file__).with_name("device_stand_in.py")
    spec = importlib.util.spec_from_file_location("device_stand_in", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_batch(make_input: Callable[..., dict[str, Any]]) -> Callable[[CfgNode], list[dict[str, Any]]]:
    """make_batch(cfg): two images with what the model learns."""

    def make(cfg: CfgNode) -> list[dict[str, Any]]:
        batch = [make_input(64, 96, count=3), make_input(72, 64, count=2, seed=3)]
        for x in batch:
            height, width = x["image"].shape[1:]
            if cfg.INPUT.MASK_FORMAT == "bitmask":
                polygons = x["instances"].gt_masks
                x["instances"].gt_masks = BitMasks.from_polygon_masks(polygons, height, width)
            if not cfg.MODEL.KEYPOINT_ON:
                x["instances"].remove("gt_keypoints")
            if not cfg.MODEL.MASK_ON:
                x["instances"].remove("gt_masks")
            x["sem_seg"] = torch.arange(height * width).reshape(height, width) % 4
        return batch

    return make


# ---- the step ----


def run_step(trainer: SimpleTrainer) -> EventStorage:
    """Run one step, with random numbers of its own; what it recorded."""
    with EventStorage(trainer.iter) as storage:
        torch.manual_seed(trainer.iter)
        trainer.run_step()
    trainer.iter += 1
    return storage


@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_for_what_is_listed_alone(name, tiny_cfg, make_batch, stand_in):
    opts, listed = MODELS[name]
    cfg = tiny_cfg(*opts, "SOLVER.BASE_LR", 0.001)
    batch = make_batch(cfg)

    def trainer_of(prepare):
        torch.manual_seed(0)
        model = prepare(build_model(cfg))
        return SimpleTrainer(model, itertools.repeat(batch), build_optimizer(cfg, model))

    trainer = trainer_of(lambda model: model)
    on_cpu = [run_step(trainer) for _ in range(2)][-1]
    with stand_in.StandInDevice() as device:
        trainer = trainer_of(stand_in.move_to_stand_in)
        run_step(trainer)
        device.waits.clear()
        there = run_step(trainer)
        waits = Counter(device.waits)
        assert waits == sum(map(Counter, listed), Counter())
        expected = {scalar: value for scalar, value in on_cpu.latest().items() if scalar != "data_time"}
        assert sum("loss" in scalar for scalar in expected) > 2
        for scalar, (value, _) in expected.items():
            assert there.latest()[scalar][0] == pytest.approx(value, rel=1e-5, abs=1e-7), scalar


PLACES = {
    "boxes.py:__getitem__": (Boxes, "__getitem__"),
    "instances.py:__getitem__": (Instances, "__getitem__"),
    "masks.py:__getitem__": (PolygonMasks, "__getitem__"),
    "masks.py:crop_and_resize": (PolygonMasks, "crop_and_resize"),
    "poolers.py:forward": (ROIPooler, "forward"),
    "proposal_utils.py:find_top_rpn_proposals": (rpn, "find_top_rpn_proposals"),
    "roi_heads.py:select_foreground_proposals": (roi_heads, "select_foreground_proposals"),
    "sampling.py:subsample_indices": (roi_heads, "subsample_indices"),
    "suppression.py:batched_nms": (proposal_utils, "batched_nms"),
}
"""Where the places that the lists name are called."""


def test_the_places_of_the_lists_are_there():
    listed = {place for _, lists in MODELS.values() for waits in lists for _, place in waits}
    assert listed == set(PLACES)
    for place, (owner, name) in PLACES.items():
        file, _, function = place.partition(":")
        assert getattr(owner, name).__code__.co_name == function
        assert Path(getattr(owner, name).__code__.co_filename).name == file


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_waits_nowhere_else(name, tiny_cfg, make_batch, monkeypatch):
    """torch raises an error at every wait; it is let off in the places of the lists."""
    opts, listed = MODELS[name]
    cfg = tiny_cfg(*opts, "MODEL.DEVICE", "cuda", "SOLVER.BASE_LR", 0.001)
    model = build_model(cfg)
    batch = torch.utils.data._utils.pin_memory.pin_memory(make_batch(cfg))
    trainer = SimpleTrainer(model, itertools.repeat(batch), build_optimizer(cfg, model))

    def let_off(function):
        def run(*args, **kwargs):
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("default")
            try:
                return function(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode(before)

        return run

    for place in {place for waits in listed for _, place in waits}:
        owner, attribute = PLACES[place]
        monkeypatch.setattr(owner, attribute, let_off(getattr(owner, attribute)))
    run_step(trainer)  # takes memory, and chooses algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        storage = [run_step(trainer) for _ in range(2)][-1]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert storage.latest()["total_loss"][0] > 0


def test_scalars_come_to_the_host_when_they_are_written(stand_in, tmp_path):
    model = torch.nn.Linear(2, 1)
    model.forward = lambda batch: {f"loss_{i}": (model.weight * i).square().sum() for i in range(9)}
    with stand_in.StandInDevice() as device:
        stand_in.move_to_stand_in(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        trainer = SimpleTrainer(model, itertools.repeat([]), optimizer)
        trainer.scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        writers = [CommonMetricPrinter(40), JSONWriter(tmp_path / "metrics.json")]
        trainer.register_hooks([IterationTimer(), LRScheduler(), PeriodicWriter(writers, period=10)])
        trainer.train(0, 40)
    places = Counter(place for _, place in device.waits)
    # Four times ten iterations were written, and all losses were looked at every twenty.
    assert places == {"event_storage.py:_flush": 4, "train_loop.py:_check_losses": 2}
    assert len((tmp_path / "metrics.json").read_text().splitlines()) == 4


def test_where_the_input_goes(stand_in, tiny_cfg, make_batch):
    """Nothing waits for the copies, whatever the fields; those of users need not know `non_blocking`."""

    class Field:
        def __init__(self, device="here"):
            self.device = device

        def __len__(self):
            return 3

        def to(self, device):
            return Field(device)

    cfg = tiny_cfg("INPUT.MASK_FORMAT", "bitmask", "MODEL.KEYPOINT_ON", True)
    model = build_model(cfg)
    (x, _) = make_batch(cfg)
    x["instances"].gt_mine, x["instances"].gt_names = Field(), ["a", "b", "c"]
    with stand_in.StandInDevice() as device:
        stand_in.move_to_stand_in(model)
        images = model.preprocess_image([x])
        (moved,) = model._ground_truth([x])
        labels = model._semantic_truth([x], 255)
        for part in (images, moved.gt_boxes, moved.gt_masks, moved.gt_keypoints, moved.gt_classes, labels):
            assert part.device == stand_in.DEVICE
        assert moved.gt_mine.device == stand_in.DEVICE
    assert moved.gt_names == ["a", "b", "c"]
    assert moved.image_size == (64, 96)
    assert device.waits == []


# ---- the stand-in itself ----


def test_what_waits_and_what_does_not(stand_in):
    def waits_for(call):
        device.waits.clear()
        call()
        return [what for what, _ in device.waits]

    with stand_in.StandInDevice() as device:
        x = torch.arange(6.0, device="meta")
        mask, idx = x > 2, torch.zeros(2, dtype=torch.int64, device="meta")
        number = ["_local_scalar_dense"]
        assert (
            waits_for(x[0].item)
            == waits_for(lambda: bool(mask.all()))
            == waits_for(lambda: int(x[1]))
            == number
        )
        assert waits_for(x.tolist) == waits_for(x.cpu) == ["copy to the host"]
        assert waits_for(lambda: torch.ones(3).to("meta")) == ["copy to the device"]
        for constant in (lambda: torch.tensor([1, 2], device="meta"), lambda: idx.new_tensor([1, 2])):
            assert waits_for(constant) == ["copy to the device"]
            assert constant().tolist() == [1, 2]
            assert constant().dtype == torch.int64
        assert waits_for(lambda: x[mask]) == ["index by a mask"]
        assert waits_for(lambda: x[[0, 1]]) == ["index from the host"]
        assert waits_for(mask.nonzero) == ["nonzero"]
        assert waits_for(x.unique) == ["_unique2"]
        assert waits_for(lambda: x.repeat_interleave(idx[:1].expand(6))) == ["repeat_interleave"]

        def free():
            torch.ones(3).to("meta", non_blocking=True)
            x[mask] = 1
            x[idx] += x[2:4]
            y = torch.where(mask, x, 0.0).masked_fill(mask, 2.0).cumsum(0).sort().values
            return y.sum(), torch.zeros(3, device="meta"), y.topk(2)

        assert waits_for(free) == []
        assert x.device.type == "meta"
        with pytest.raises(RuntimeError, match="on the host and on the device"):
            x + torch.ones(6)
        assert x.tolist() == [1.0, 1.0, 2.0, 1.0, 1.0, 1.0]
