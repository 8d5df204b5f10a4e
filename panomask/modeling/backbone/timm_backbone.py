"""Any model of the package timm as a backbone: MODEL.BACKBONE.NAME "timm/<model>[.<tag>]".

Shapes: N images, Ci channels, Hi x Wi cells at stride i. The features are called res2 to res5 and have
strides 4 to 32, so that a ResNet's config stays as it is but for the backbone's name and MODEL.WEIGHTS "".
"""

import logging
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from panomask.config import CfgNode
from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling.backbone import timm_network
from panomask.modeling.backbone.backbone import Backbone

PREFIX = "timm/"
"""What MODEL.BACKBONE.NAME begins with."""

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}

NORMS = ("FrozenBN", "BN", "SyncBN")
"""What can become of a model's batch norms."""

logger = logging.getLogger(__name__)


class TimmBackbone(Backbone):
    """Feature maps of a timm model.

    A map whose size is not what its stride promises is resized to it, bilinearly. So plain vision
    transformers, whose maps all have one stride, patches of 14 pixels and convolutions that lose the border
    fit a pyramid. State-dict keys: timm's, below `net`.

    Args:
        name: "<model>" or "<model>.<tag>", as timm calls it.
        out_features: some of res2, res3, res4 and res5.
        is_pretrained: load the weights of the tag: from the cache folder, or as timm fetches them.
        freeze_at: 0 trains everything, 1 all but the stem, 2 all but the stem and what makes res2, ...
        norm: what becomes of the model's batch norms: "FrozenBN", "BN" (they stay) or "SyncBN".
        dilation: 2 keeps res5 at stride 16.
        pixel_mean, pixel_std: how the images are normalised, a number a channel, on the scale 0 to 255; they
            are turned into what the model was trained on.
        input_format: "BGR" or "RGB".

    Raises:
        InputError: timm is missing, it does not know the model or the tag, the weights cannot be fetched, or
            the model lacks what the arguments ask of it.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        name: str,
        *,
        out_features: Sequence[str],
        is_pretrained: bool,
        freeze_at: int = 0,
        norm: str = "FrozenBN",
        dilation: int = 1,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
    ):
        super().__init__()
        _check_arguments(out_features, norm, input_format, num_channels=len(pixel_mean))
        timm = timm_network.import_timm(name)
        timm_network.check_name(timm, name)
        offer, options = timm_network.offer_maps(timm, name, dilation=dilation)
        maps = {level: timm_network.nearest_map(offer, STRIDES[level]) for level in out_features}
        indices = sorted(set(maps.values()))
        net = timm_network.create_model(timm, name, options, indices=indices, is_pretrained=is_pretrained)
        info = net.feature_info
        is_own = {level: offer.reduction(index) == STRIDES[level] for level, index in maps.items()}
        if not all(is_own.values()):
            made = ", ".join(level for level in maps if not is_own[level])
            logger.info(f"timm/{name} has no map of its own for {made}: the nearest is resized")
        self._out_features = list(out_features)
        self._out_feature_channels = {level: int(info.channels(index)) for level, index in maps.items()}
        self._out_feature_strides = {
            level: int(info.reduction(index)) if is_own[level] else STRIDES[level]
            for level, index in maps.items()
        }
        self._sources = {level: indices.index(index) for level, index in maps.items()}
        self._is_channels_last = getattr(net, "output_fmt", None) == "NHWC"
        self.net = timm_network.set_norms(timm, net, norm)
        timm_network.freeze(timm, self.net, offer, freeze_at)
        self._is_bgr = input_format == "BGR"
        self._init_normalization(pixel_mean, pixel_std, net.pretrained_cfg["mean"], net.pretrained_cfg["std"])

    def _init_normalization(
        self,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        trained_mean: Sequence[float],
        trained_std: Sequence[float],
    ) -> None:
        """Buffers by which `images * scale + shift` (R, G, B) is what the model was trained on.

        `trained_mean` and `trained_std` are those of R, G, B on the scale 0 to 1.
        """
        means, stds, trained_means, trained_stds = (
            torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)
            for values in (pixel_mean, pixel_std, trained_mean, trained_std)
        )
        if self._is_bgr:
            means, stds = means.flip(0), stds.flip(0)
        scale = stds / (255 * trained_stds)
        shift = (means / 255 - trained_means) / trained_stds
        self.register_buffer("scale", scale.float(), persistent=False)
        self.register_buffer("shift", shift.float(), persistent=False)

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride: some models drop what is left of an image when it is cut into cells."""
        return max(self._out_feature_strides.values())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, 3, H, W), normalised as the config says -> features by name, each (N, Ci, Hi, Wi)."""
        height, width = x.shape[2:]
        x = (x.flip(1) if self._is_bgr else x) * self.scale + self.shift
        maps = self.net(x)
        features = {}
        for level, source in self._sources.items():
            feature = maps[source]
            if self._is_channels_last:
                feature = feature.permute(0, 3, 1, 2).contiguous()  # (N, Ci, Hi, Wi)
            stride = self._out_feature_strides[level]
            size = (math.ceil(height / stride), math.ceil(width / stride))
            if feature.shape[2:] != size:
                feature = F.interpolate(feature, size, mode="bilinear", align_corners=False)
            features[level] = feature
        return features


def _check_arguments(out_features: Sequence[str], norm: str, input_format: str, *, num_channels: int) -> None:
    if not out_features or not set(out_features) <= set(STRIDES):
        raise InputError(
            f"MODEL.RESNETS.OUT_FEATURES: {list(out_features)}: allowed with a timm backbone are one or more"
            f" of {', '.join(STRIDES)}"
        )
    if norm not in NORMS:
        raise InputError(
            f"MODEL.RESNETS.NORM: {norm!r}: a timm backbone has norms of its own; allowed are"
            f" {', '.join(NORMS)}, which say what becomes of its batch norms"
        )
    if input_format not in ("RGB", "BGR") or num_channels != 3:
        raise InputError(
            f"INPUT.FORMAT: {input_format}, with {num_channels} numbers in MODEL.PIXEL_MEAN: a timm backbone"
            " takes RGB or BGR"
        )


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The timm model that MODEL.BACKBONE.NAME names, with the weights of its tag where MODEL.WEIGHTS is "".

    Its features, the fate of its norms and its dilation are those of MODEL.RESNETS.
    """
    assert input_shape.channels == len(cfg.MODEL.PIXEL_MEAN), input_shape
    name = cfg.MODEL.BACKBONE.NAME.removeprefix(PREFIX)
    res = cfg.MODEL.RESNETS
    has_tag, is_start = "." in name, cfg.MODEL.WEIGHTS == ""
    if any(res.DEFORM_ON_PER_STAGE):
        raise InputError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE: {list(res.DEFORM_ON_PER_STAGE)}: a timm backbone has no"
            " deformable convolution; all must be False"
        )
    backbone = TimmBackbone(
        name,
        out_features=res.OUT_FEATURES,
        is_pretrained=has_tag and is_start,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm=res.NORM,
        dilation=res.RES5_DILATION,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        input_format=cfg.INPUT.FORMAT,
    )
    if has_tag and not is_start:
        logger.info(f"timm/{name}: MODEL.WEIGHTS takes the place of the tag's weights")
    has_batch_norms = any(key.endswith("running_var") for key in backbone.state_dict())
    if not has_tag and is_start and res.NORM == "FrozenBN" and has_batch_norms:
        logger.warning(
            f"MODEL.BACKBONE.NAME: timm/{name} has random weights, and under MODEL.RESNETS.NORM FrozenBN they"
            f" hardly train: name a tag (timm/{name}.<tag>), or set the norm to BN"
        )
    return backbone
