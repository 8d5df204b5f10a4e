"""Videos as streams of frames, one in memory at a time."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from panomask.errors import InputError

logger = logging.getLogger(__name__)

# What FFmpeg writes to standard error about a damaged file adds nothing to our own line about it.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

DEFAULT_FRAMES_PER_SECOND = 25.0
"""Of a video that does not say."""


class VideoReader:
    """The frames of a video file, (H, W, 3) BGR uint8; use it as a context manager.

    Attributes:
        frames_per_second: of the file.
        num_frames: what the file claims, 0 if it does not; fewer may come if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        self.frames_per_second = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FRAMES_PER_SECOND
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        while True:
            is_read, frame = self._capture.read()
            if not is_read:
                break
            count += 1
            yield frame
        if count == 0:
            raise InputError(f"{self.path}: no frame can be read; give a video that OpenCV can decode")
        if count < self.num_frames:
            logger.warning("%s: only %d of %d frames could be read", self.path, count, self.num_frames)


class VideoWriter:
    """An MP4 file, opened when the size of its first frame is known; use it as a context manager."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._frames_per_second = frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (H, W, 3) RGB uint8, all of one size."""
        if self._writer is None:
            height, width = frame.shape[:2]
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), codec, self._frames_per_second, (width, height))
            if not self._writer.isOpened():
                raise InputError(f"{self._path}: cannot be written as an MP4 video; check the folder")
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
