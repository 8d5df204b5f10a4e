import json

import pytest
import torch
from panoptic_fpn.alternating import keep_in_graph

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.modeling import build_model

INSTANCE_LOSSES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
INSTANCE_BRANCH = ("proposal_generator.", "roi_heads.")


@pytest.fixture
def learn(tiny_cfg, batch):
    """learn(architecture, iteration): losses and gradients by name, from the same weights and samples."""

    def run(architecture, iteration, *opts):
        torch.manual_seed(0)
        model = build_model(tiny_cfg(architecture, *opts))
        torch.manual_seed(1)
        with EventStorage(iteration):
            losses = model(batch)
        sum(losses.values()).backward()
        return losses, {name: parameter.grad for name, parameter in model.named_parameters()}

    return run


def test_even_iterations_learn_instances_and_odd_ones_labels(learn):
    for iteration, names, idle in (
        (0, INSTANCE_LOSSES, ("sem_seg_head.",)),
        (1, {"loss_sem_seg"}, INSTANCE_BRANCH),
        (6, INSTANCE_LOSSES, ("sem_seg_head.",)),
        (7, {"loss_sem_seg"}, INSTANCE_BRANCH),
    ):
        losses, gradients = learn("AlternatingPanopticFPN", iteration)
        assert set(losses) == names
        for name, gradient in gradients.items():
            assert gradient is not None, name
            assert gradient.any() == (not name.startswith(idle)), name


def test_two_iterations_are_one_of_panoptic_fpn(learn):
    """Losses and gradients of both tasks add up to those of the combined losses, each with its weight."""
    weights = ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 0.5, "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.25)
    expected_losses, expected = learn("PanopticFPN", 0, *weights)
    (instance, first), (semantic, second) = (
        learn("AlternatingPanopticFPN", iteration, *weights) for iteration in (0, 1)
    )
    found = {name: loss.item() for name, loss in (instance | semantic).items()}
    assert found == {name: pytest.approx(loss.item()) for name, loss in expected_losses.items()}
    for name, gradient in expected.items():
        torch.testing.assert_close(first[name] + second[name], gradient, rtol=1e-3, atol=1e-5)


def test_norms_of_the_idle_task_stay_as_they_are(tiny_cfg, batch):
    model = build_model(tiny_cfg("AlternatingPanopticFPN", "MODEL.SEM_SEG_HEAD.NORM", "BN"))
    norm = model.sem_seg_head.p2[0].norm
    for iteration, count in ((0, 0), (1, 1), (2, 1)):
        with EventStorage(iteration):
            model(batch)
        assert norm.num_batches_tracked == count


def test_without_a_trainer_it_is_the_first_iteration(tiny_cfg, batch):
    model = build_model(tiny_cfg("AlternatingPanopticFPN"))
    unlabelled = [{name: value for name, value in x.items() if name != "sem_seg"} for x in batch]
    assert set(model(unlabelled)) == INSTANCE_LOSSES
    with EventStorage(1), pytest.raises(InputError, match="AlternatingPanopticFPN learns from 'sem_seg'"):
        model(unlabelled)


def test_weights_and_output_are_those_of_panoptic_fpn(tiny_cfg, batch):
    torch.manual_seed(0)
    plain = build_model(tiny_cfg("PanopticFPN")).eval()
    model = build_model(tiny_cfg("AlternatingPanopticFPN")).eval()
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected, found = plain(batch)[0], model(batch)[0]
    assert set(found) == {"instances", "sem_seg", "panoptic_seg"}
    assert torch.equal(found["instances"].scores, expected["instances"].scores)
    assert torch.equal(found["sem_seg"], expected["sem_seg"])
    assert torch.equal(found["panoptic_seg"][0], expected["panoptic_seg"][0])


def test_keep_in_graph():
    used, unused, frozen = (torch.nn.Parameter(torch.full((2,), 3.0)) for _ in range(3))
    frozen.requires_grad_(False)
    losses = keep_in_graph({"a": used.sum(), "b": 2 * used.sum()}, [used, unused, frozen])
    assert {name: loss.item() for name, loss in losses.items()} == {"a": 6, "b": 12}
    sum(losses.values()).backward()
    assert used.grad.tolist() == [3, 3]
    assert unused.grad.tolist() == [0, 0]
    assert frozen.grad is None


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_task_whose_turn_it_is(train, tmp_path):
    opts = ("MODEL.META_ARCHITECTURE", "AlternatingPanopticFPN", "SOLVER.MAX_ITER", 6)
    opts += ("SOLVER.CHECKPOINT_PERIOD", 3, "DATASETS.TEST", "()")
    out = tmp_path / "out"
    train(*opts)
    expected = torch.load(out / "model_final.pth", weights_only=True)["model"]
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert ["loss_sem_seg" in line for line in lines] == [False, True] * 3
    assert ["loss_mask" in line for line in lines] == [True, False] * 3
    (out / "last_checkpoint").write_text("model_0000002.pth")
    train("--resume", *opts)
    found = torch.load(out / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.slow
def test_two_processes_train_and_evaluate(train, tmp_path):
    """DistributedDataParallel refuses a parameter without a gradient in the iteration that follows."""
    opts = ("MODEL.META_ARCHITECTURE", "AlternatingPanopticFPN", "SOLVER.MAX_ITER", 4)
    train("--num-gpus", 2, *opts)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"panoptic_seg", "segm", "sem_seg"} <= set(results["shapes_panoptic_val"])
