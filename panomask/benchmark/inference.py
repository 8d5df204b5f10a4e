"""Whole models on one image: beside the same model in plain modules, and beside torchvision's."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from panomask.benchmark.comparison import Comparison
from panomask.benchmark.models import (
    MASK_RCNN,
    NUM_TORCHVISION_CLASSES,
    RETINANET,
    mask_rcnn_like,
    plain_eager,
    smooth_image,
    spread_weights,
    torchvision_mask_rcnn,
    zoo_config,
)
from panomask.config import CfgNode
from panomask.engine.precision import inference_autocast
from panomask.modeling import build_model

SCORES_EQUAL, BF16_SCORES_EQUAL = 1e-4, 0.1
"""How far the best scores may be apart, in float32 and in bfloat16, whose numbers have three digits."""

BEST = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--height", type=int, default=800, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--width", type=int, default=1216, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--compile", action="store_true", help="a row for MODEL.COMPILE too; compiling takes a minute"
    )


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    image = smooth_image((args.height, args.width))
    size = f"{args.height} x {args.width}"
    for name, zoo_name, target in (("Mask R-CNN", MASK_RCNN, 1.5), ("RetinaNet", RETINANET, 1.35)):
        yield from _beside_plain(f"{name} R50-FPN, {size}", zoo_name, image, target, args)
    yield _mask_rcnn_of_torchvision(f"Mask R-CNN R50-FPN, {size}", image, args.device)
    yield _retinanet_of_torchvision(f"RetinaNet R50-FPN, {size}", image, args.device)


def _beside_plain(
    name: str, zoo_name: str, image: Tensor, target: float, args: argparse.Namespace
) -> Iterator[Comparison]:
    ways: list[tuple[str, float | None, list[Any]]] = [
        ("float32", target, []),
        ("bfloat16", None, ["TEST.PRECISION", "bfloat16"]),
        *([("float32, compiled", None, ["MODEL.COMPILE", True])] if args.compile else []),
    ]
    plain_cfg = zoo_config(zoo_name, args.device, "MODEL.CHANNELS_LAST", False)
    plain = plain_eager(spread_weights(build_model(plain_cfg)))
    for precision, wanted, overrides in ways:
        cfg = zoo_config(zoo_name, args.device, *overrides)
        ours = build_model(cfg)
        ours.load_state_dict(plain.state_dict())
        yield Comparison(
            f"{name}, {precision}",
            detector(cfg, ours, image),
            detector(plain_cfg, plain, image),
            "the same in plain modules, float32",
            BestScores(BF16_SCORES_EQUAL if precision == "bfloat16" else SCORES_EQUAL),
            wanted,
        )


def detector(cfg: CfgNode, model: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    """A call that detects in the image as `DefaultPredictor` does, and gives the scores."""
    model.eval()

    def detect() -> Tensor:
        with torch.no_grad(), inference_autocast(cfg):
            return model([{"image": image}])[0]["instances"].scores

    return detect


class BestScores:
    """Both find as many objects, and the best of both have the same scores."""

    def __init__(self, at_most: float):
        self.at_most = at_most

    def __call__(self, ours: Tensor, reference: Tensor) -> str:
        assert len(ours) == len(reference) > 0, f"{len(ours)} objects found, reference {len(reference)}"
        best = zip(ours.sort().values.flip(0)[:BEST], reference.sort().values.flip(0)[:BEST], strict=True)
        difference = max(float((a - b).abs()) for a, b in best)
        assert difference <= self.at_most, f"scores differ by {difference:.3g}"
        return f"{len(ours)} objects, best scores within {difference:.1e}"


def _found_as_many(ours: Tensor, reference: Tensor) -> str:
    assert len(ours) == len(reference) > 0, f"{len(ours)} objects found, reference {len(reference)}"
    return f"{len(ours)} objects each"


def _torchvision_detector(model: nn.Module, image: Tensor, device: str) -> Callable[[], Tensor]:
    pixels = (image / 255).to(device)
    model.eval()

    def detect() -> Tensor:
        with torch.no_grad():
            return model([pixels])[0]["scores"]

    return detect


def _mask_rcnn_of_torchvision(name: str, image: Tensor, device: str) -> Comparison:
    """The same weights in both; torchvision rounds anchors to whole pixels, so that scores are not equal."""
    sizes: dict[str, Any] = {"min_size": min(image.shape[1:]), "max_size": max(image.shape[1:])}
    reference = torchvision_mask_rcnn(device, **sizes)
    cfg, ours = mask_rcnn_like(reference, device)
    return Comparison(
        f"{name}, float32",
        detector(cfg, ours, image),
        _torchvision_detector(reference, image, device),
        "torchvision maskrcnn_resnet50_fpn",
        _found_as_many,
    )


def _retinanet_of_torchvision(name: str, image: Tensor, device: str) -> Comparison:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    reference = RetinaNet(
        backbone,
        NUM_TORCHVISION_CLASSES,
        min_size=min(image.shape[1:]),
        max_size=max(image.shape[1:]),
        detections_per_img=100,
    )
    spread_weights(reference).to(device)
    cfg = zoo_config(RETINANET, device)
    return Comparison(
        f"{name}, float32",
        detector(cfg, spread_weights(build_model(cfg)), image),
        _torchvision_detector(reference, image, device),
        "torchvision retinanet_resnet50_fpn",
        _found_as_many,
    )
