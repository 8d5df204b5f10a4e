import numpy as np
import pytest

from panomask.engine.video_files import VideoReader, VideoWriter
from panomask.errors import InputError


def _write(path, brightness: list[int], rate: float = 10.0) -> None:
    with VideoWriter(path, rate) as video:
        for value in brightness:
            video.write(np.full((48, 64, 3), (value, 0, 0), np.uint8))  # red


def test_round_trip(tmp_path):
    path = tmp_path / "a.mp4"
    _write(path, [40, 120, 200])
    with VideoReader(path) as video:
        assert (video.frames_per_second, video.num_frames) == (10.0, 3)
        frames = list(video)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    for frame, value in zip(frames, [40, 120, 200], strict=True):
        assert frame[:, :, 2].mean() == pytest.approx(value, abs=12)  # BGR, lossy
        assert frame[:, :, 0].mean() < 20


@pytest.mark.parametrize("content", [b"", b"not a video" * 100])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with VideoReader(path) as video, pytest.raises(InputError, match=r"bad\.mp4: no frame can be read"):
        list(video)


def test_a_video_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp4: cannot be written"):
        _write(tmp_path / "missing" / "a.mp4", [1])
