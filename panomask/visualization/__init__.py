"""Drawing on images and video."""

from panomask.visualization.colormap import colormap, random_color, random_colors
from panomask.visualization.comparison_sheet import comparison_sheet, draw_truth
from panomask.visualization.image_file import write_image
from panomask.visualization.video_visualizer import VideoVisualizer, _DetectedInstance
from panomask.visualization.visualizer import (
    ColorMode,
    GenericMask,
    VisImage,
    Visualizer,
    _create_text_labels,
)

__all__ = [
    "ColorMode",
    "GenericMask",
    "VideoVisualizer",
    "VisImage",
    "Visualizer",
    "_DetectedInstance",
    "_create_text_labels",
    "colormap",
    "comparison_sheet",
    "draw_truth",
    "random_color",
    "random_colors",
    "write_image",
]
