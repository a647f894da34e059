"""Read videos with PyAV (FFmpeg): seek to the key frame before a clip and decode from there.

A reader has three modes, from fast to certain. If a check fails in one mode, the reader switches to
the next mode and stays there. A full sequential decode defines what frame k is.

- "sparse": seek, and let the decoder skip frames that are neither requested nor used as references
  (H.264's B-frames: a third of the work on Kinetics). Only H.264, in containers that store times.
- "seek": seek, decode every frame, and compare each one with the next entry of the packet table.
- "start": decode from the start, and count frames.

Legend: T requested frames, U distinct ones among them, H x W picture, 3 RGB.
"""

from collections.abc import Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from hiera_video.data.decoders._container import DecodeError, too_few
from hiera_video.data.decoders._packets import (
    decode,
    decoded_stamps,
    demux,
    open_stream,
    scan,
)
from hiera_video.data.decoders._picture import display_matrix, pixel_ratio, upright
from hiera_video.data.decoders._reader import BaseReader, as_asked, unique_indices
from hiera_video.data.decoders._timeline import timeline_of

# Decoding up to a key frame this close costs no more than seeking to it. After a seek, the decoder
# needs about as many packets before it returns its first frame (the B-frame delay).
_READ_ON_FRAMES = 4

_UNKNOWN = -1  # the number of a frame whose time is not in the packet table


def open_video(path: str, *, file: str) -> "PyavReader":
    """Open a video with PyAV; raises DecodeError if it cannot be read or holds no frames."""
    return PyavReader(path, file)


class _DoubtError(Exception):
    """A decoded frame does not match the packet table."""


class PyavReader(BaseReader):
    """Reads one video with one single-threaded PyAV decoder; see VideoReader.

    `mode` is the current mode of reading: "sparse", "seek" or "start".
    """

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self.file = file
        self._container, self._stream = open_stream(self.file, path)
        try:
            self._table = scan(self._container, self._stream)
            self.mode = self._first_mode()
            self.num_frames = self._table.num_frames
            stamps: list[int | None] | None = None
            if self.mode == "start":
                # If packets have no proper times, there may also be more packets than frames.
                stamps, damaged = decoded_stamps(self.file, path)
                self.num_frames = max(self.num_frames, len(stamps)) if damaged else len(stamps)
            if self.num_frames == 0:
                raise DecodeError(path, "holds a video stream without frames.")
            self.timeline = timeline_of(self._table, num_frames=self.num_frames, stamps=stamps)
            self.pixel_ratio = pixel_ratio(self._stream)
        except BaseException:
            self.close()
            raise
        self._number_of_pts = {int(pts): k for k, pts in enumerate(self._table.pts_N)}
        self._reformatter = VideoReformatter()

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; see VideoReader.frames_at."""
        wanted_U, place_T = unique_indices(indices, num_frames=self.num_frames, path=self.path)
        while self.mode != "start":
            try:
                frames_UHWC = self._read_by_seeking(wanted_U)
                break
            except (_DoubtError, av.FFmpegError):
                self.mode = "seek" if self.mode == "sparse" else "start"
        else:
            frames_UHWC = self._read_from_start(wanted_U)
        return as_asked(frames_UHWC, place_T)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._container.close()

    def _first_mode(self) -> str:
        if self._table.doubt:
            return "start"
        is_h264 = self._stream.codec_context.codec.canonical_name == "h264"
        return "sparse" if is_h264 and self._table.stores_pts else "seek"

    def _read_by_seeking(self, wanted_U: np.ndarray) -> np.ndarray:
        if wanted_U[-1] >= len(self._table.pts_N):
            raise _DoubtError  # promised by the header, but not in the file
        pictures = _Pictures(self.path, wanted_U)
        run: list[int] = []
        for index in wanted_U.tolist():
            key_frame = int(self._table.key_frames_K[self._key_before(index)])
            if run and key_frame - run[-1] > _READ_ON_FRAMES:
                self._read_run(run, pictures)
                run = []
            run.append(index)
        self._read_run(run, pictures)
        return pictures.all_UHWC()

    def _key_before(self, index: int) -> int:
        """Return the position in `key_frames_K` of the last key frame up to frame `index`."""
        place = int(np.searchsorted(self._table.key_frames_K, index, side="right")) - 1
        if place < 0:
            raise _DoubtError
        return place

    def _read_run(self, run: list[int], pictures: "_Pictures") -> None:
        """Decode from the key frame before `run` (ascending) and keep the frames of `run`."""
        key = self._key_before(run[0])
        key_frame = int(self._table.key_frames_K[key])
        wanted_pts = {int(self._table.pts_N[index]) for index in run}
        missing = set(run)
        decoder = self._stream.codec_context
        decoder.skip_frame = "DEFAULT"
        self._container.seek(int(self._table.key_pts_K[key]), stream=self._stream)
        last = key_frame - 1
        for packet in demux(self._container, self._stream):
            if self.mode == "sparse":
                decoder.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
            for frame in packet.decode():
                number = self._number_of_pts.get(frame.pts, _UNKNOWN)
                if _UNKNOWN < number < key_frame:
                    continue  # the seek went further back, or leading frames of an open group
                self._check(frame, number, last=last, key_frame=key_frame)
                last = number
                if number in missing:
                    pictures.keep(number, self._upright_rgb(frame))
                    missing.remove(number)
                    if not missing:
                        return
        raise _DoubtError

    def _check(self, frame: av.VideoFrame, number: int, *, last: int, key_frame: int) -> None:
        """Raise unless `frame` is the one that follows frame `last` in the packet table."""
        if number <= last or frame.is_corrupt:
            raise _DoubtError
        if last < key_frame and not (number == key_frame and frame.key_frame):
            raise _DoubtError  # the decoder did not start at the key frame
        if self.mode == "sparse":
            # The two fields of a picture may be two packets, so times do not count frames.
            if frame.interlaced_frame:
                raise _DoubtError
        elif number != last + 1:
            raise _DoubtError

    def _read_from_start(self, wanted_U: np.ndarray) -> np.ndarray:
        self._container.close()
        self._container, self._stream = open_stream(self.file, self.path)
        missing = set(wanted_U.tolist())
        pictures = _Pictures(self.path, wanted_U)
        number = 0
        try:
            for frame in decode(self._container, self._stream):
                if number in missing:
                    pictures.keep(number, self._upright_rgb(frame))
                    missing.remove(number)
                    if not missing:
                        return pictures.all_UHWC()
                number += 1
        except av.FFmpegError:
            pass  # treat a file that is damaged here like a file that ends here
        raise too_few(
            self.path,
            decoded=number,
            promised=self.num_frames,
            index=min(missing),
        )

    def _upright_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        picture_HWC = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        self.matrix = display_matrix(frame)
        return upright(picture_HWC, self.matrix)


class _Pictures:
    """One array for the requested frames; each picture is copied into it once it is decoded.

    Keeping all decoded pictures in order to stack them would double the memory of a clip.
    """

    def __init__(self, path: str, wanted_U: np.ndarray) -> None:
        self._path = path
        self._place = {index: place for place, index in enumerate(wanted_U.tolist())}
        self._frames_UHWC: np.ndarray | None = None

    def keep(self, index: int, picture_HWC: np.ndarray) -> None:
        """Copy the picture of frame `index`; raises DecodeError if its size differs."""
        if self._frames_UHWC is None:
            self._frames_UHWC = np.empty((len(self._place), *picture_HWC.shape), np.uint8)
        if self._frames_UHWC.shape[1:] != picture_HWC.shape:
            sizes = {f"{w}x{h}" for h, w, _ in (self._frames_UHWC.shape[1:], picture_HWC.shape)}
            raise DecodeError(
                self._path, f"its picture changes size on the way ({', '.join(sorted(sizes))})."
            )
        self._frames_UHWC[self._place[index]] = picture_HWC

    def all_UHWC(self) -> np.ndarray:
        """Return the array; call this once all pictures are kept."""
        assert self._frames_UHWC is not None
        return self._frames_UHWC
