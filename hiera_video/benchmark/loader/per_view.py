"""Make test views the usual way, as a reference: every view opens and decodes the video again.

Legend: V clips, T frames of a clip, N decoded frames, C channels, H height, W width.
"""

import av
import numpy as np
import torch
import torch.nn.functional as F

from hiera_video.data.dataset import TestViews
from hiera_video.data.decoders import DecodeError, Decoding, open_video
from hiera_video.data.decoders._container import open_container
from hiera_video.data.decoders._reader import fetch_file
from hiera_video.data.transforms.crops import resize_short_side, spatial_crops
from hiera_video.data.transforms.pipeline import TestTransform, to_frames


def read_per_view(path: str, views: TestViews, *, backend: str | Decoding) -> None:
    """Make all views with our reader and transforms, decoding for each.

    Raises DecodeError if the backend cannot read the video.
    """
    for clip in range(_num_clips(views)):
        for crop in range(views.transform.num_crops):
            with open_video(path, backend=backend) as video:
                ticks_VT = views.sample_frames(video.num_ticks, video.fps)
                frames_THWC = video.frames_at(video.ticks_to_frames(ticks_VT[clip]))
            frames_TCHW = resize_short_side(to_frames(frames_THWC), views.transform.crop_size)
            _crop(frames_TCHW, views.transform, crop).permute(0, 2, 3, 1).contiguous()


def read_per_view_as_pyslowfast(path: str, views: TestViews) -> None:
    """Make all views the way PySlowFast's test does, with PyAV.

    For each view: open, seek to the key frame before the clip, decode every frame up to the clip's
    end with one thread, convert all frames of the clip to RGB, take T of them, normalise them,
    resize them as floats, crop. This supports only videos of a constant frame rate.

    Raises DecodeError if PyAV cannot read the video.
    """
    finish = views.transform.finish
    mean_C, std_C = torch.tensor(finish.mean), torch.tensor(finish.std)
    for clip in range(_num_clips(views)):
        for crop in range(views.transform.num_crops):
            frames_THWC = _decode_clip(path, views, clip).float() / 255
            clip_CTHW = ((frames_THWC - mean_C) / std_C).permute(3, 0, 1, 2)
            height, width = clip_CTHW.shape[-2:]
            side, short = views.transform.crop_size, min(height, width)
            clip_CTHW = F.interpolate(
                clip_CTHW,
                size=(height * side // short, width * side // short),
                mode="bilinear",
                align_corners=False,
            )
            _crop(clip_CTHW, views.transform, crop).contiguous()


def _num_clips(views: TestViews) -> int:
    return len(views.sample_frames(1, 0.0))  # the same for every video


def _decode_clip(path: str, views: TestViews, clip: int) -> torch.Tensor:
    """Decode a clip to uint8 RGB [T, H, W, C]."""
    frames: list[np.ndarray] = []
    try:
        with open_container(fetch_file(path), path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if not (stream.frames and stream.average_rate and stream.time_base):
                raise DecodeError(path, "does not say how many frames it holds, or how fast.")
            chosen_T = views.sample_frames(stream.frames, float(stream.average_rate))[clip]
            first, last = int(chosen_T[0]), int(chosen_T[-1])
            per_frame = 1 / (stream.average_rate * stream.time_base)
            start = stream.start_time or 0
            container.seek(start + int(first * per_frame), stream=stream)
            for frame in container.decode(stream):
                number = round(((frame.pts or 0) - start) / per_frame)
                if number >= first:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if number >= last:
                    break
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DecodeError(path, f"cannot be read by PyAV ({error}).") from None
    frames_NHWC = torch.from_numpy(np.stack(frames))
    return frames_NHWC[np.linspace(0, len(frames) - 1, len(chosen_T)).astype(np.int64)]


def _crop(frames: torch.Tensor, transform: TestTransform, crop: int) -> torch.Tensor:
    size, num_crops = transform.crop_size, transform.num_crops
    return spatial_crops(frames, size=size, num_crops=num_crops)[crop]
