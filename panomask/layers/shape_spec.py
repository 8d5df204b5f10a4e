"""What a module promises about a feature map before any tensor exists."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Shape of a feature map: channels, height, width in cells, and stride in image pixels per cell.

    None stands for "not known, or not fixed".
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
