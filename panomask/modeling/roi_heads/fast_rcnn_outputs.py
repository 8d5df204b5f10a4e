"""`FastRCNNOutputs`: predictions and proposals in one object, as Detectron2 had it before version 0.5."""

from collections.abc import Sequence

import torch

from panomask.layers import cat, cross_entropy
from panomask.modeling.box_regression import BoxCoding
from panomask.modeling.roi_heads.fast_rcnn import (
    FastRCNNOutputLayers,
    _log_classification_stats,
    fast_rcnn_inference,
)
from panomask.structures import Boxes, Instances


class FastRCNNOutputs:
    """Losses and detections of R RoIs, for code that derives its own losses from it.

    What it computes is what `FastRCNNOutputLayers` computes; use that in new code.

    Args:
        box2box_transform: coding of the deltas.
        pred_class_logits: (R, K + 1).
        pred_proposal_deltas: (R, K * 4) or (R, 4).
        proposals: N `Instances` with `proposal_boxes` and, for losses, `gt_classes` and `gt_boxes`.
        smooth_l1_beta, box_reg_loss_type: see `FastRCNNOutputLayers`.
    """

    def __init__(
        self,
        box2box_transform: BoxCoding,
        pred_class_logits: torch.Tensor,
        pred_proposal_deltas: torch.Tensor,
        proposals: Sequence[Instances],
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
    ):
        self.box2box_transform = box2box_transform
        self.num_preds_per_image = [len(x) for x in proposals]
        self.pred_class_logits = pred_class_logits
        self.pred_proposal_deltas = pred_proposal_deltas
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.image_shapes = [x.image_size for x in proposals]
        self._proposals = list(proposals)
        self._no_instances = len(proposals) == 0
        if self._no_instances:
            self.proposals = Boxes(pred_proposal_deltas.new_zeros(0, 4))
            return
        self.proposals = Boxes.cat([x.proposal_boxes for x in proposals])
        if proposals[0].has("gt_classes"):
            self.gt_classes = cat([x.gt_classes for x in proposals])  # (R,)
            boxes = [x.gt_boxes if x.has("gt_boxes") else x.proposal_boxes for x in proposals]
            self.gt_boxes = Boxes.cat(boxes)

    def softmax_cross_entropy_loss(self) -> torch.Tensor:
        """Mean over the R RoIs; logs their accuracy."""
        if self._no_instances:
            return 0.0 * self.pred_class_logits.sum()
        self._log_accuracy()
        return cross_entropy(self.pred_class_logits, self.gt_classes, reduction="mean")

    def box_reg_loss(self) -> torch.Tensor:
        """See `FastRCNNOutputLayers.box_reg_loss`."""
        if self._no_instances:
            return 0.0 * self.pred_proposal_deltas.sum()
        return self._layers().box_reg_loss(
            self.proposals.tensor, self.gt_boxes.tensor, self.pred_proposal_deltas, self.gt_classes
        )

    def losses(self) -> dict[str, torch.Tensor]:
        """`loss_cls` and `loss_box_reg`; for subclasses to override."""
        return {"loss_cls": self.softmax_cross_entropy_loss(), "loss_box_reg": self.box_reg_loss()}

    def predict_boxes(self) -> list[torch.Tensor]:
        """Decoded boxes of each image: (Ri, K * 4) or (Ri, 4)."""
        return self._layers().predict_boxes(self._predictions(), self._proposals)

    def predict_probs(self) -> list[torch.Tensor]:
        """Class probabilities of each image: (Ri, K + 1)."""
        return self._layers().predict_probs(self._predictions(), self._proposals)

    def inference(
        self, score_thresh: float, nms_thresh: float, topk_per_image: int
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """See `fast_rcnn_inference`."""
        return fast_rcnn_inference(
            self.predict_boxes(),
            self.predict_probs(),
            self.image_shapes,
            score_thresh,
            nms_thresh,
            topk_per_image,
        )

    def _log_accuracy(self) -> None:
        _log_classification_stats(self.pred_class_logits.detach(), self.gt_classes)

    def _predictions(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pred_class_logits, self.pred_proposal_deltas

    def _layers(self) -> FastRCNNOutputLayers:
        """Layers that compute with this object's settings. They have no weights, which would be drawn."""
        with torch.device("meta"):
            return FastRCNNOutputLayers(
                1,
                box2box_transform=self.box2box_transform,
                num_classes=self.pred_class_logits.shape[1] - 1,
                smooth_l1_beta=self.smooth_l1_beta,
                box_reg_loss_type=self.box_reg_loss_type,
            )
