"""Write a clip as two files: a picture of all its frames, and a film.

Shape suffixes: T frames or time steps, H height, W width, C colours (RGB); frames are uint8.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np

from hiera_video.visualize.pictures import enlarged, labelled_grid, save_mp4, save_png, side_by_side

# Smaller pictures are enlarged to these widths, in the grid and in the film.
CELL_PX, PANEL_PX = 112, 224
MAX_FPS = 4  # slow enough to follow: 16x4 clips at 30 frames per second have 3.75 steps a second


def write_film(
    stem: str,
    parts: Mapping[str, np.ndarray],
    seconds_T: np.ndarray,
    *,
    title: str,
    caption: str = "",
) -> str:
    """Write STEM.png with a row of frames for each part, and STEM.mp4 with the parts side by side.

    `parts` are frames_THWC by label; `seconds_T` is the time of each frame in the video. Returns
    the two paths, for a message. Raises a UserError if a file cannot be written.
    """
    rows = {label: enlarged(frames, at_least=CELL_PX) for label, frames in parts.items()}
    columns = [f"{sec:.2f} s" for sec in seconds_T]
    save_png(f"{stem}.png", labelled_grid(rows, columns, title=title, caption=caption))

    panels = {label: enlarged(frames, at_least=PANEL_PX) for label, frames in parts.items()}
    duration_sec = seconds_T[-1] - seconds_T[0]
    fps = round((len(seconds_T) - 1) / duration_sec) if duration_sec > 0 else MAX_FPS
    save_mp4(f"{stem}.mp4", side_by_side(panels), fps=min(max(fps, 1), MAX_FPS))
    return f"{stem}.png, {stem}.mp4"


def stems(videos: Sequence[str], folder: str, *, ending: str) -> list[str]:
    """Return a unique path stem for each video's pictures: FOLDER/NAME + `ending`.

    NAME is the video's. If several videos have the same, their folder stands in front of it, which
    is the class in most data sets: FOLDER/CLASS_NAME. A number makes the rest unique.
    """
    paths = [PurePath(video.rpartition("::")[2]) for video in videos]  # "::": a video in a shard
    counts = Counter(path.stem for path in paths)
    taken: list[str] = []
    for path in paths:
        parent = path.parent.name.strip(".") if counts[path.stem] > 1 else ""
        name = f"{parent}_{path.stem}{ending}" if parent else path.stem + ending
        number = sum(PurePath(other).name.startswith(name) for other in taken)
        while (stem := os.path.join(folder, name + (f"_{number + 1}" if number else ""))) in taken:
            number += 1
        taken.append(stem)
    return taken
