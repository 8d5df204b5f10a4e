"""How Detectron2's heads and backbones draw the weights that no checkpoint brings."""

from torch import nn


def msra_fill(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    """Normal weights of variance 2 / fan-out (He et al. 2015, arXiv:1502.01852, eq. 14), zero bias."""
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def xavier_fill(module: nn.Conv2d | nn.Linear) -> None:
    """Uniform weights of variance 1 / fan-in, which Caffe2 calls Xavier's, zero bias."""
    nn.init.kaiming_uniform_(module.weight, a=1)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
