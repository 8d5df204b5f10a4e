import torch

from panomask.event_storage import EventStorage
from panomask.modeling.box_regression import Box2BoxTransform
from panomask.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from panomask.modeling.roi_heads.fast_rcnn_outputs import FastRCNNOutputs
from panomask.structures import Boxes, Instances

NUM_CLASSES = 3
CODING = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))


def _proposals() -> list[Instances]:
    with_objects = Instances((40, 50))
    with_objects.proposal_boxes = Boxes(torch.tensor([[0.0, 0, 10, 10], [5, 5, 30, 30], [1, 2, 9, 20]]))
    with_objects.gt_classes = torch.tensor([0, 2, NUM_CLASSES])
    with_objects.gt_boxes = Boxes(torch.tensor([[0.0, 0, 12, 11], [5, 4, 28, 31], [0, 0, 1, 1]]))
    without = Instances((30, 30))
    without.proposal_boxes = Boxes(torch.tensor([[3.0, 3, 20, 20]]))
    without.gt_classes = torch.tensor([NUM_CLASSES])
    return [with_objects, without]


def _predictions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, NUM_CLASSES + 1, generator=generator)
    return logits.requires_grad_(), torch.randn(4, NUM_CLASSES * 4, generator=generator).requires_grad_()


def test_it_computes_what_the_layers_compute():
    layers = FastRCNNOutputLayers(
        1, box2box_transform=CODING, num_classes=NUM_CLASSES, smooth_l1_beta=0.5, test_score_thresh=0.05
    )
    predictions, proposals = _predictions(), _proposals()
    outputs = FastRCNNOutputs(CODING, *predictions, proposals, 0.5)
    generator = torch.get_rng_state()
    with EventStorage() as storage:
        losses = outputs.losses()
        assert torch.equal(torch.get_rng_state(), generator)  # a step draws no number for it
        assert "fast_rcnn/cls_accuracy" in storage.latest()
        expected = layers.losses(predictions, proposals)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    detections, kept = outputs.inference(0.05, 0.5, 100)
    expected_detections, expected_kept = layers.inference(predictions, proposals)
    for found, wanted in zip(detections, expected_detections, strict=True):
        torch.testing.assert_close(found.pred_boxes.tensor, wanted.pred_boxes.tensor)
        torch.testing.assert_close(found.scores, wanted.scores)
    assert [x.tolist() for x in kept] == [x.tolist() for x in expected_kept]


def test_a_subclass_with_a_loss_of_its_own():
    class Focal(FastRCNNOutputs):
        def losses(self):
            probs = self.pred_class_logits.softmax(1).gather(1, self.gt_classes[:, None])
            return {"loss_cls": ((1 - probs) ** 2 * -probs.log()).mean(), "loss_box_reg": self.box_reg_loss()}

    logits, deltas = _predictions()
    sum(Focal(CODING, logits, deltas, _proposals()).losses().values()).backward()
    assert logits.grad.abs().sum() > 0
    assert deltas.grad.abs().sum() > 0


def test_no_images_and_no_truth():
    logits, deltas = torch.zeros(0, NUM_CLASSES + 1), torch.zeros(0, 4)
    assert sum(FastRCNNOutputs(CODING, logits, deltas, []).losses().values()) == 0
    alone = Instances((5, 5), proposal_boxes=Boxes(torch.zeros(0, 4)))
    detections, _ = FastRCNNOutputs(CODING, logits, deltas, [alone]).inference(0.5, 0.5, 10)
    assert len(detections[0]) == 0
