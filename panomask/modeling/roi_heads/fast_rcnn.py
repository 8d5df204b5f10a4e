"""Class scores and box deltas of regions, their losses, and the final detections (arXiv:1504.08083).

Shapes: N images, R RoIs of all images (Ri of one), K classes, B = 4 numbers of a box, D detections of an
image. Foreground classes 0..K-1, background K.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.layers import (
    ShapeSpec,
    at_least_float32,
    batched_nms,
    cat,
    cross_entropy,
    nonzero_tuple,
)
from panomask.modeling.box_regression import (
    Box2BoxTransform,
    BoxCoding,
    _dense_box_regression_loss,
    check_box_reg_loss_type,
)
from panomask.registry import DATASET_FUNCTIONS_REGISTRY
from panomask.structures import Boxes, Instances


def fast_rcnn_inference(
    boxes: Sequence[torch.Tensor],
    scores: Sequence[torch.Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[torch.Tensor]]:
    """`fast_rcnn_inference_single_image` for N images: N results, and N index tensors of their RoIs."""
    results = [
        fast_rcnn_inference_single_image(*image, score_thresh, nms_thresh, topk_per_image)
        for image in zip(boxes, scores, image_shapes, strict=True)
    ]
    return [instances for instances, _ in results], [kept for _, kept in results]


def fast_rcnn_inference_single_image(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, torch.Tensor]:
    """Threshold, suppress per class, keep the best; a RoI may give several detections of different classes.

    Args:
        boxes: (Ri, K * 4), or (Ri, 4) where the classes share a box.
        scores: (Ri, K + 1), the last for background.
        image_shape: (height, width), to which boxes are clipped.
        score_thresh: scores must exceed this.
        nms_thresh: IoU above which the lower-scored box of the same class goes.
        topk_per_image: how many detections to keep; negative: all.

    Returns:
        `Instances` with `pred_boxes`, `scores` and `pred_classes` (D,), best first; and the RoI (index of the
        row) that each came from. Rows with an infinite or NaN entry give none.
    """
    is_finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)  # (Ri,)
    scores = scores[:, :-1]
    roi_idx, classes = nonzero_tuple((scores > score_thresh) & is_finite[:, None])  # (D0,) each
    scores = scores[roi_idx, classes]
    boxes = boxes.unflatten(1, (-1, 4))  # (Ri, K or 1, 4)
    candidates = Boxes(boxes[roi_idx, classes if boxes.shape[1] > 1 else 0])
    candidates.clip(image_shape)

    keep = batched_nms(candidates.tensor, scores, classes, nms_thresh)
    keep = keep[:topk_per_image] if topk_per_image >= 0 else keep
    result = Instances(
        image_shape,
        pred_boxes=Boxes(candidates.tensor[keep]),
        scores=scores[keep],
        pred_classes=classes[keep],
    )
    return result, roi_idx[keep]


def _log_classification_stats(
    pred_logits: torch.Tensor, gt_classes: torch.Tensor, prefix: str = "fast_rcnn"
) -> None:
    """Log the accuracy over all RoIs and over the foreground, and how much of the latter was missed.

    Args:
        pred_logits: (R, K + 1).
        gt_classes: (R,). Nothing is logged for R = 0; without foreground its two rates are 0.
    """
    if gt_classes.numel() == 0:
        return
    background = pred_logits.shape[1] - 1
    pred_classes = pred_logits.argmax(dim=1)
    is_correct = pred_classes == gt_classes
    is_fg = (gt_classes >= 0) & (gt_classes < background)
    num_fg = is_fg.sum().clamp(min=1)
    storage = get_event_storage()
    storage.put_scalar(f"{prefix}/cls_accuracy", is_correct.float().mean())
    storage.put_scalar(f"{prefix}/fg_cls_accuracy", (is_correct & is_fg).sum() / num_fg)
    storage.put_scalar(f"{prefix}/false_negative", ((pred_classes == background) & is_fg).sum() / num_fg)


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers on the box head's output: class scores and box deltas.

    Args:
        input_shape: of the box head's output (an int: its channels).
        box2box_transform: coding of the deltas.
        num_classes: K.
        test_score_thresh, test_nms_thresh, test_topk_per_image: see `fast_rcnn_inference_single_image`.
        cls_agnostic_bbox_reg: one box for all classes instead of one for each.
        smooth_l1_beta, box_reg_loss_type: see `_dense_box_regression_loss`.
        loss_weight: one factor, or one for each of "loss_cls" and "loss_box_reg".
        use_fed_loss: only some classes take part in each step's `loss_cls`; see `get_fed_loss_classes`.
        use_sigmoid_ce: each class has a score of its own, by the sigmoid, instead of a softmax over all.
        get_fed_loss_cls_weights: returns (K,), how likely each class is to be drawn as a negative. Called in
            the first training step, so that testing a model does not need what it reads, and not at all where
            a checkpoint has brought them: they are its entry `fed_loss_cls_weights`, as in Detectron2.
        fed_loss_num_classes: how many classes take part, background counted where it is in the batch.

    Raises:
        InputError: a federated loss without sigmoids or without `get_fed_loss_cls_weights`.
    """

    fed_loss_cls_weights: torch.Tensor

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: BoxCoding,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], torch.Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ):
        super().__init__()
        check_box_reg_loss_type(box_reg_loss_type, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE")
        if use_fed_loss and (not use_sigmoid_ce or get_fed_loss_cls_weights is None):
            raise InputError(
                "MODEL.ROI_BOX_HEAD.USE_FED_LOSS leaves classes out one by one: set USE_SIGMOID_CE True, and"
                " give get_fed_loss_cls_weights where the predictor is built without a config"
            )
        if isinstance(input_shape, int):
            input_shape = ShapeSpec(channels=input_shape)
        input_size = (input_shape.channels or 0) * (input_shape.width or 1) * (input_shape.height or 1)
        box_dim = len(box2box_transform.weights) if hasattr(box2box_transform, "weights") else 4
        num_boxes = 1 if cls_agnostic_bbox_reg else num_classes
        self.cls_score = nn.Linear(input_size, num_classes + 1)
        self.bbox_pred = nn.Linear(input_size, num_boxes * box_dim)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.num_classes = num_classes
        self.box2box_transform = box2box_transform
        self.smooth_l1_beta = smooth_l1_beta
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.box_reg_loss_type = box_reg_loss_type
        if not isinstance(loss_weight, dict):
            loss_weight = {"loss_cls": loss_weight, "loss_box_reg": loss_weight}
        self.loss_weight = loss_weight
        self.use_sigmoid_ce = use_sigmoid_ce
        self.use_fed_loss = use_fed_loss
        self.fed_loss_num_classes = fed_loss_num_classes
        self.get_fed_loss_cls_weights = get_fed_loss_cls_weights
        if use_fed_loss:
            self.register_buffer("fed_loss_cls_weights", torch.zeros(num_classes))  # zeros: not known yet

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        box_head, roi_heads = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_HEADS
        return {
            "input_shape": input_shape,
            "box2box_transform": Box2BoxTransform(weights=box_head.BBOX_REG_WEIGHTS),
            "num_classes": roi_heads.NUM_CLASSES,
            "test_score_thresh": roi_heads.SCORE_THRESH_TEST,
            "test_nms_thresh": roi_heads.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "cls_agnostic_bbox_reg": box_head.CLS_AGNOSTIC_BBOX_REG,
            "smooth_l1_beta": box_head.SMOOTH_L1_BETA,
            "box_reg_loss_type": box_head.BBOX_REG_LOSS_TYPE,
            "loss_weight": {"loss_box_reg": box_head.BBOX_REG_LOSS_WEIGHT},
            "use_fed_loss": box_head.USE_FED_LOSS,
            "use_sigmoid_ce": box_head.USE_SIGMOID_CE,
            "get_fed_loss_cls_weights": functools.partial(
                _class_weights_of_data, tuple(cfg.DATASETS.TRAIN), box_head.FED_LOSS_FREQ_WEIGHT_POWER
            ),
            "fed_loss_num_classes": box_head.FED_LOSS_NUM_CLASSES,
        }

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, C) or (R, C, H, W) -> logits (R, K + 1) and deltas (R, K * B), or (R, B) class-agnostic."""
        x = x.flatten(1) if x.dim() > 2 else x
        return self.cls_score(x), self.bbox_pred(x)

    def losses(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: Sequence[Instances]
    ) -> dict[str, torch.Tensor]:
        """`loss_cls` and `loss_box_reg`.

        Args:
            predictions: as `forward` returns them.
            proposals: N `Instances` with `proposal_boxes`, `gt_classes` and, in images with objects,
                `gt_boxes`.
        """
        scores, deltas = predictions
        if proposals:
            gt_classes = cat([x.gt_classes for x in proposals])  # (R,)
            proposal_boxes = cat([x.proposal_boxes.tensor for x in proposals])  # (R, 4)
            # Images without objects have background alone, whose boxes are not looked at.
            gt_boxes = cat(
                [(x.gt_boxes if x.has("gt_boxes") else x.proposal_boxes).tensor for x in proposals]
            )
        else:
            gt_classes = torch.empty(0, dtype=torch.int64, device=scores.device)
            proposal_boxes = gt_boxes = deltas.new_empty((0, 4))
        _log_classification_stats(scores.detach(), gt_classes)
        losses = {
            "loss_cls": self._classification_loss(scores, gt_classes),
            "loss_box_reg": self.box_reg_loss(proposal_boxes, gt_boxes, deltas, gt_classes),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def _classification_loss(self, logits: torch.Tensor, gt_classes: torch.Tensor) -> torch.Tensor:
        if self.use_sigmoid_ce:
            return self.sigmoid_cross_entropy_loss(logits, gt_classes)
        return cross_entropy(logits, gt_classes, reduction="mean")

    def sigmoid_cross_entropy_loss(
        self, pred_class_logits: torch.Tensor, gt_classes: torch.Tensor
    ) -> torch.Tensor:
        """Binary cross entropy of every class, or those of the federated loss: summed, and divided by R.

        Args:
            pred_class_logits: (R, K + 1); the last, of background, is not looked at.
            gt_classes: (R,), K for background, of which every class is a negative.
        """
        num_rois, num_classes = pred_class_logits.shape[0], pred_class_logits.shape[1] - 1
        is_class = gt_classes[:, None] == torch.arange(num_classes, device=gt_classes.device)  # (R, K)
        logits = pred_class_logits[:, :-1]
        loss = F.binary_cross_entropy_with_logits(logits, is_class.to(logits.dtype), reduction="none")
        if self.use_fed_loss and num_rois > 0:
            if not self.fed_loss_cls_weights.any():
                self.fed_loss_cls_weights.copy_(self._checked_fed_loss_cls_weights())
            chosen = self.get_fed_loss_classes(
                gt_classes, self.fed_loss_num_classes, num_classes, self.fed_loss_cls_weights
            )
            takes_part = loss.new_zeros(num_classes + 1).index_fill_(0, chosen, 1.0)
            loss = loss * takes_part[:num_classes]
        return loss.sum() / max(num_rois, 1)

    def get_fed_loss_classes(
        self, gt_classes: torch.Tensor, num_fed_loss_classes: int, num_classes: int, weight: torch.Tensor
    ) -> torch.Tensor:
        """The classes of one step's federated loss (Zhou et al., arXiv:2103.07461, section 4.1).

        Args:
            gt_classes: (R,), K for background.
            num_fed_loss_classes: how many there shall be. All that occur in `gt_classes` take part, more of
                them or not; the rest is drawn from the others.
            num_classes: K.
            weight: (K,), not negative: a class is drawn with a probability in proportion to it.

        Returns:
            Distinct classes, K among them where it occurs: those that occur, ascending, then those drawn.
        """
        occurring = torch.unique(gt_classes)
        num_drawn = num_fed_loss_classes - len(occurring)
        if num_drawn <= 0:
            return occurring
        odds = F.pad(weight.float(), (0, 1)).index_fill(0, occurring, 0.0)  # (K + 1,), 0 for background
        return torch.cat([occurring, torch.multinomial(odds, num_drawn, replacement=False)])

    def _checked_fed_loss_cls_weights(self) -> torch.Tensor:
        assert self.get_fed_loss_cls_weights is not None
        weights = self.get_fed_loss_cls_weights()
        num_drawable = int((weights > 0).sum())
        if len(weights) != self.num_classes:
            raise InputError(
                f"MODEL.ROI_HEADS.NUM_CLASSES is {self.num_classes}, but there are frequencies of"
                f" {len(weights)} classes for MODEL.ROI_BOX_HEAD.USE_FED_LOSS"
            )
        if num_drawable < self.fed_loss_num_classes:
            raise InputError(
                f"MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES is {self.fed_loss_num_classes}, but only"
                f" {num_drawable} classes of the training data occur in an image: set it to {num_drawable} or"
                " less, or USE_FED_LOSS False"
            )
        return weights

    def box_reg_loss(
        self,
        proposal_boxes: torch.Tensor,
        gt_boxes: torch.Tensor,
        pred_deltas: torch.Tensor,
        gt_classes: torch.Tensor,
    ) -> torch.Tensor:
        """Regression loss of the foreground, divided by the number of all RoIs.

        So every foreground RoI weighs the same, whatever their number; a mean over the foreground would weigh
        those of images with few of them more.

        Args:
            proposal_boxes, gt_boxes: (R, 4).
            pred_deltas: (R, K * B) or (R, B).
            gt_classes: (R,).
        """
        is_fg = (gt_classes >= 0) & (gt_classes < self.num_classes)
        loss = _dense_box_regression_loss(
            [proposal_boxes],
            self.box2box_transform,
            [_of_class(pred_deltas, gt_classes, proposal_boxes.shape[1])[None]],
            [gt_boxes],
            is_fg[None],
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return loss / max(gt_classes.numel(), 1)

    def inference(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Detections of N images, and the RoI each came from; see `fast_rcnn_inference`."""
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [x.image_size for x in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes_for_gt_classes(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: Sequence[Instances]
    ) -> list[torch.Tensor]:
        """Decoded boxes (Ri, B) of each image's RoIs, of their true class (of any class for background).

        Args:
            proposals: N `Instances` with `proposal_boxes` and `gt_classes`.
        """
        if not proposals:
            return []
        proposal_boxes = cat([x.proposal_boxes.tensor for x in proposals])
        gt_classes = cat([x.gt_classes for x in proposals])
        deltas = _of_class(predictions[1], gt_classes, proposal_boxes.shape[1])
        boxes = self.box2box_transform.apply_deltas(deltas, proposal_boxes)
        return list(boxes.split([len(x) for x in proposals]))

    def predict_boxes(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: Sequence[Instances]
    ) -> list[torch.Tensor]:
        """Decoded boxes of each image's RoIs: (Ri, K * B), or (Ri, B) class-agnostic."""
        if not proposals:
            return []
        proposal_boxes = cat([x.proposal_boxes.tensor for x in proposals])
        boxes = self.box2box_transform.apply_deltas(predictions[1], proposal_boxes)
        return list(boxes.split([len(x) for x in proposals]))

    def predict_probs(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: Sequence[Instances]
    ) -> list[torch.Tensor]:
        """Class probabilities (Ri, K + 1) of each image's RoIs; the last is of background, or unused."""
        logits = at_least_float32(predictions[0])
        probs = logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(dim=-1)
        return list(probs.split([len(x) for x in proposals]))


def _class_weights_of_data(dataset_names: Sequence[str], power: float) -> torch.Tensor:
    """(K,) weights that the data sets' class frequencies give for the federated loss."""
    name = "get_fed_loss_cls_weights"
    if name not in DATASET_FUNCTIONS_REGISTRY:
        raise InputError("MODEL.ROI_BOX_HEAD.USE_FED_LOSS: import panomask.data, which counts the classes")
    return DATASET_FUNCTIONS_REGISTRY.get(name)(dataset_names, freq_weight_power=power)


def _of_class(deltas: torch.Tensor, classes: torch.Tensor, box_dim: int) -> torch.Tensor:
    """Of deltas (R, K * B) those of the given classes (R,), or the only ones: (R, B).

    Background gets the last class's.
    """
    if deltas.shape[1] == box_dim:
        return deltas
    deltas = deltas.unflatten(1, (-1, box_dim))  # (R, K, B)
    idx = classes.clamp(0, deltas.shape[1] - 1)[:, None, None].expand(-1, 1, box_dim)
    return deltas.gather(1, idx)[:, 0]  # (R, B)
