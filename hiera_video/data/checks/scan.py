"""Decode every video of a list as training would, in processes that can be killed.

A video that hangs or crashes its decoder costs one process and nothing else. Verdicts are written
to a journal at once, so that a scan that was stopped can continue.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import av
import numpy as np

from hiera_video.data import sampling
from hiera_video.data.checks.fingerprint import VideoFacts
from hiera_video.data.checks.journal import Journal, Verdict
from hiera_video.data.decoders import DecodeError, Decoding, VideoReader, open_video
from hiera_video.data.decoders._container import open_container
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.workers.pool import Lost, WorkerPool
from hiera_video.data.workers.process import Job
from hiera_video.utils.errors import reason_of

# Where the decoded clips lie in a video: at its start, its middle and its end.
POSITIONS = (0.0, 0.5, 1.0)

# Memory for the frames decoded at a time when all are decoded.
_CHUNK_BYTES = 128 << 20
# More frames than any clip needs.
_ENDLESS = 1 << 40
# Videos queued in the pool for each worker.
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What "decodable" means in a scan: decoder, clip, and whether every frame is decoded."""

    backend: str
    full: bool
    clip: ClipSpec
    square_pixels: bool = True

    @property
    def depth(self) -> str:
        """What the scan decodes: "full" (every frame) or "clips"."""
        return "full" if self.full else "clips"

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain types."""
        clip = self.clip
        return {
            "backend": self.backend,
            "full": self.full,
            "sampling": clip.sampling,
            "num_frames": clip.num_frames,
            "sampling_rate": clip.sampling_rate,
            "target_fps": clip.target_fps,
            "square_pixels": self.square_pixels,
        }


Opener = Callable[..., VideoReader]


def check_video(
    path: str, job: Job, *, settings: ScanSettings, opener: Opener = open_video
) -> Verdict:
    """Decode one video as one step of `job`; errors of the video become part of the verdict.

    `opener` is `open_video` or a function with the same interface.
    """
    job.begin(0)
    decoding = Decoding(settings.backend, settings.square_pixels)
    try:
        with opener(path, backend=decoding) as reader:
            picture_HWC = _decode(reader, settings)
            facts = _facts(reader, picture_HWC, settings)
    except DecodeError as error:
        return Verdict(reason=error.cause)
    except MemoryError:
        return Verdict(reason="takes more memory to decode than there is.")
    except Exception as error:  # a bug in a decoder must not stop the scan either
        return Verdict(reason=f"stopped its decoder with {reason_of(error)}")
    return Verdict(facts=facts)


def scan(
    paths: Sequence[str],
    *,
    settings: ScanSettings,
    journal: Journal,
    num_workers: int,
    time_limit_sec: float,
    progress: Callable[[Verdict], None] = lambda verdict: None,
) -> dict[str, Verdict]:
    """Return the verdict on every path; paths with a verdict in the journal are not decoded.

    A video is bad if it takes longer than `time_limit_sec` or crashes its process. Calls
    `progress` with each verdict. Paths must be distinct.
    """
    verdicts: dict[str, Verdict] = {}
    left: list[str] = []
    for path in paths:
        known = journal.verdict(path, time_limit_sec=time_limit_sec)
        if known is None:
            left.append(path)
        else:
            verdicts[path] = known
            progress(known)
    work = partial(check_video, settings=settings, opener=open_video)
    num_workers = min(num_workers, len(left))
    if left:
        with WorkerPool(work, num_workers=num_workers, deadline_sec=time_limit_sec) as pool:
            for path, verdict in _verdicts(pool, left, num_workers, time_limit_sec):
                journal.add(path, verdict)
                verdicts[path] = verdict
                progress(verdict)
    return verdicts


def _verdicts(
    pool: WorkerPool, paths: Sequence[str], num_workers: int, time_limit_sec: float
) -> Iterator[tuple[str, Verdict]]:
    """Keep the pool busy; yield each verdict as it arrives."""
    waiting = iter(enumerate(paths))
    for number, path in islice(waiting, num_workers * _AHEAD):
        pool.submit(number, path)
    for _ in paths:
        result = pool.next()
        for number, path in islice(waiting, 1):
            pool.submit(number, path)
        assert result is not None  # there is no time limit on waiting
        if isinstance(result, Lost):
            verdict = Verdict(reason=f"{result.reason}.", lost_after_sec=time_limit_sec)
        else:
            verdict = result.value
        yield paths[result.task_id], verdict


def _decode(reader: VideoReader, settings: ScanSettings) -> np.ndarray:
    """Decode the clips or frames that the settings ask for; return one picture."""
    picture_HWC = np.empty(0)
    for frame_indices_T in _wanted(reader, settings):
        picture_HWC = reader.frames_at(frame_indices_T)[0]
    if not settings.full:
        return picture_HWC
    per_chunk = max(_CHUNK_BYTES // max(picture_HWC.nbytes, 1), settings.clip.num_frames)
    for start in range(0, reader.num_frames, per_chunk):
        reader.frames_at(np.arange(start, min(start + per_chunk, reader.num_frames)))
    return picture_HWC


def _wanted(reader: VideoReader, settings: ScanSettings) -> list[np.ndarray]:
    """Return the clips that training would take at the start, in the middle and at the end."""
    if settings.clip.sampling == "uniform":
        offsets = [min(position, 0.999) for position in POSITIONS]
        clips = [
            sampling.uniform_indices(
                reader.num_ticks, num_frames=settings.clip.num_frames, offset=offset
            )
            for offset in offsets
        ]
    else:
        clips = [
            sampling.dense_indices(settings.clip, reader.num_ticks, reader.fps, position=position)
            for position in POSITIONS
        ]
    return [reader.ticks_to_frames(ticks_T) for ticks_T in clips]


def _facts(reader: VideoReader, picture_HWC: np.ndarray, settings: ScanSettings) -> VideoFacts:
    if settings.clip.sampling == "uniform":
        needed = settings.clip.num_frames
    else:
        last_frame = sampling.dense_indices(settings.clip, _ENDLESS, reader.fps, position=0.0)[-1]
        needed = int(last_frame) + 1
    return VideoFacts(
        num_frames=reader.num_frames,
        length_sec=round(reader.num_ticks / reader.fps, 3) if reader.fps > 0 else None,
        width=int(picture_HWC.shape[1]),
        height=int(picture_HWC.shape[0]),
        codec=_codec(reader),
        is_short=reader.num_ticks < needed,
    )


def _codec(reader: VideoReader) -> str:
    """Return FFmpeg's name of the codec, read from the header."""
    try:
        with open_container(reader.file, reader.path) as container:
            stream = container.streams.best("video")
            return stream.codec_context.codec.canonical_name
    except (DecodeError, av.FFmpegError, AttributeError):
        return "unknown"
