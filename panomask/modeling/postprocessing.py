"""From the network's input size to the size the caller asked for.

Shapes: R detections; K classes; Hm x Wm mask grid.
"""

import torch
import torch.nn.functional as F

from panomask.structures import Instances, ROIMasks


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Scale detections to an image of (output_height, output_width) and paste their masks into it.

    Args:
        results: `pred_boxes` (or `proposal_boxes`) in pixels of `results.image_size`; optionally `pred_masks`
            (R, 1, Hm, Wm) or (R, Hm, Wm) scores inside the boxes, and `pred_keypoints` (R, keypoints, 3).
            Left as they are; further fields are passed on.
        mask_threshold: pasted scores from here on are foreground.

    Returns:
        New `Instances` of the output size: boxes scaled, clipped, and dropped where nothing is left of them;
        `pred_masks` (R, output_height, output_width) bool.
    """
    scale_y = output_height / results.image_size[0]
    scale_x = output_width / results.image_size[1]
    results = Instances((output_height, output_width), **results.get_fields())

    box_field = "pred_boxes" if results.has("pred_boxes") else "proposal_boxes"
    boxes = results.get(box_field).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(results.image_size)
    results.set(box_field, boxes)
    results = results[boxes.nonempty()]

    if results.has("pred_masks"):
        masks = results.pred_masks
        if isinstance(masks, torch.Tensor):
            masks = ROIMasks(masks[:, 0] if masks.dim() == 4 else masks)
        pasted = masks.to_bitmasks(results.get(box_field).tensor, output_height, output_width, mask_threshold)
        results.pred_masks = pasted.tensor
    if results.has("pred_keypoints"):
        scale = results.pred_keypoints.new_tensor([scale_x, scale_y, 1.0])
        results.pred_keypoints = results.pred_keypoints * scale
    return results


def sem_seg_postprocess(
    result: torch.Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> torch.Tensor:
    """Cut the padding off semantic logits and resize them, bilinear.

    Args:
        result: (K, H, W) logits of the padded image.
        img_size: (height, width) of the image in it.

    Returns:
        (K, output_height, output_width) logits.
    """
    result = result[None, :, : img_size[0], : img_size[1]]
    size = (output_height, output_width)
    return F.interpolate(result, size=size, mode="bilinear", align_corners=False)[0]
