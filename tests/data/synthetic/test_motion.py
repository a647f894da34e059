"""The classes are in the motion, all of them, and nowhere else."""

import numpy as np
import pytest
import torch

from hiera_video.data.synthetic.motion import MOTIONS, Track, draw_track
from hiera_video.data.synthetic.render import MARKINGS, SHAPES, render_clip

CLASSES = list(MOTIONS)
NUM_FRAMES = 24
WINDOW = 16


def coordinates(track: Track) -> dict[str, np.ndarray]:
    return {
        "x": track.x_T,
        "y": track.y_T,
        "size": np.log(track.radius_T),
        "angle": track.angle_T,
    }


@pytest.fixture(scope="module")
def tracks() -> dict[str, list[Track]]:
    return {
        motion: [
            draw_track(np.random.default_rng([index, 7, number]), motion, num_frames=NUM_FRAMES)
            for number in range(600)
        ]
        for index, motion in enumerate(CLASSES)
    }


@pytest.fixture(scope="module")
def clips() -> tuple[np.ndarray, np.ndarray]:
    """Frames [N, T, H, W] of grey levels, and labels; the classes take turns."""
    labels = np.tile(np.arange(len(CLASSES)), 150)
    grey = [
        render_clip(np.random.default_rng([11, number]), CLASSES[label], size=32).mean(-1)
        for number, label in enumerate(labels)
    ]
    return np.stack(grey).astype(np.float32), labels


# --- tracks -----------------------------------------------------------------------------------


def ks_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Return the largest gap between two empirical distribution functions."""
    both = np.sort(np.concatenate([one, two]))
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (one, two)]
    return float(np.abs(shares[0] - shares[1]).max())


def ks_limit(num_one: int, num_two: int) -> float:
    # Passed by chance once in a million comparisons (Smirnov's asymptotic formula).
    return float(np.sqrt(np.log(2e6) / 2 * (1 / num_one + 1 / num_two)))


def in_frame(tracks: list[Track], name: str, frame: int) -> np.ndarray:
    values = np.array([coordinates(track)[name][frame] for track in tracks])
    return values % (2 * np.pi) if name == "angle" else values


@pytest.mark.parametrize("frame", [0, NUM_FRAMES // 2, NUM_FRAMES - 1])
@pytest.mark.parametrize("name", ["x", "y", "size", "angle"])
def test_in_one_frame_every_class_has_the_same_distribution(
    tracks: dict[str, list[Track]], name: str, frame: int
) -> None:
    for motion in CLASSES:
        own = in_frame(tracks[motion], name, frame)
        others = np.concatenate(
            [in_frame(tracks[other], name, frame) for other in CLASSES if other != motion]
        )
        assert ks_distance(own, others) < ks_limit(len(own), len(others)), (motion, name, frame)


def test_without_the_loop_the_first_frame_would_tell(tracks: dict[str, list[Track]]) -> None:
    # The fault that the test above is there to find: keep only tracks that never start anew.
    smooth = {
        motion: [t for t in tracks[motion] if np.abs(np.diff(t.x_T)).max() < 0.25]
        for motion in ("moves_left", "moves_right")
    }
    left, right = (in_frame(chosen, "x", 0) for chosen in smooth.values())
    assert min(len(left), len(right)) > 100
    assert ks_distance(left, right) > 2 * ks_limit(len(left), len(right))


@pytest.mark.parametrize("motion", CLASSES)
def test_each_class_moves_its_own_coordinate_alone(
    tracks: dict[str, list[Track]], motion: str
) -> None:
    coordinate, direction = MOTIONS[motion]
    # Over 15 steps; the camera's drift, sway and jerks and the roll are in all classes.
    least = {"x": 0.18 - 0.08, "y": 0.18 - 0.08, "size": np.log(1.29), "angle": np.radians(55)}
    for track in tracks[motion][:200]:
        values = coordinates(track)
        # The median step, so that the jump of a loop that starts anew does not count.
        moved = {name: WINDOW * np.median(np.diff(values_T)) for name, values_T in values.items()}
        assert direction * moved[coordinate] > least[coordinate]
        for other in set(moved) - {coordinate}:
            if {other, coordinate} != {"x", "y"}:  # a tilt of 15 degrees moves both a little
                assert abs(moved[other]) < least[other]


def test_a_loop_starts_anew_once_at_most_and_the_centre_stays_in_the_frame(
    tracks: dict[str, list[Track]],
) -> None:
    outside = 0
    for motion in CLASSES:
        for track in tracks[motion]:
            steps = np.hypot(np.diff(track.x_T), np.diff(track.y_T))
            assert (steps > 0.25).sum() <= 1
            assert (np.abs(np.diff(np.log(track.radius_T))) > 0.3).sum() <= 1
            assert track.radius_T.min() > 0.1
            assert track.radius_T.max() < 0.4
            outside += max(np.abs(track.x_T).max(), np.abs(track.y_T).max()) > 0.5
    assert outside < 0.001 * sum(map(len, tracks.values()))


# --- pictures ---------------------------------------------------------------------------------


def object_features(grey_NHW: np.ndarray) -> np.ndarray:
    """Return [N, 6] of the object in each picture: x, y, log area, angle (as 2 numbers), contrast.

    Knows nothing of how it was drawn: the object is what is far from the picture's median grey.
    """
    size = grey_NHW.shape[-1]
    offset_NHW = grey_NHW - np.median(grey_NHW, axis=(1, 2), keepdims=True)
    weight_NHW = np.clip((np.abs(offset_NHW) - 32) / 15, 0, 1) + 1e-6
    area_N = weight_NHW.sum((1, 2))
    axis = (np.arange(size) + 0.5) / size - 0.5
    x_N = (weight_NHW * axis).sum((1, 2)) / area_N
    y_N = (weight_NHW * axis[:, None]).sum((1, 2)) / area_N
    dx_NHW = axis[None, None, :] - x_N[:, None, None]
    dy_NHW = axis[None, :, None] - y_N[:, None, None]
    xx_N = (weight_NHW * dx_NHW**2).sum((1, 2)) / area_N
    yy_N = (weight_NHW * dy_NHW**2).sum((1, 2)) / area_N
    xy_N = (weight_NHW * dx_NHW * dy_NHW).sum((1, 2)) / area_N
    contrast_N = (weight_NHW * offset_NHW).sum((1, 2)) / area_N / 255
    return np.stack(
        [
            *(x_N, y_N, np.log(area_N)),
            *((xx_N - yy_N) / (xx_N + yy_N), 2 * xy_N / (xx_N + yy_N), contrast_N),
        ],
        axis=1,
    )


# As seen on the screen: y grows downwards, and so an angle grows clockwise.
SEEN = {
    "moves_left": ("x", -1),
    "moves_right": ("x", 1),
    "moves_up": ("y", -1),
    "moves_down": ("y", 1),
    "turns_clockwise": ("angle", 1),
    "turns_counterclockwise": ("angle", -1),
    "grows": ("size", 1),
    "shrinks": ("size", -1),
}


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("motion", CLASSES)
def test_the_picture_moves_as_the_class_says(motion: str, bright: bool) -> None:
    coordinate, direction = SEEN[motion]
    for seed in range(3):
        clip_THWC = render_clip(
            np.random.default_rng([seed, 2]), motion, size=64, shape="bar", bright=bright
        )
        features = object_features(clip_THWC.mean(-1))
        # The long axis of a bar: twice its angle, so that half a turn makes no difference.
        doubled = np.unwrap(np.arctan2(features[:, 4], features[:, 3]))
        measured = {
            "x": features[:, 0],
            "y": features[:, 1],
            "size": features[:, 2],
            "angle": doubled / 2,
        }
        steps = {name: np.median(np.diff(values)) for name, values in measured.items()}
        least = {"x": 0.006, "y": 0.006, "size": 0.02, "angle": np.radians(3)}
        assert direction * steps[coordinate] > least[coordinate], (seed, steps)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("marking", MARKINGS)
def test_a_turned_object_looks_turned(shape: str, marking: str) -> None:
    axis = np.linspace(-1.2, 1.2, 97, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    inside = SHAPES[shape](u, v) < 0
    picture = inside * (1 + (MARKINGS[marking](u, v) < 0))
    assert 0.15 < inside.mean() < 0.6
    assert 0.05 < (picture == 2).sum() / inside.sum() < 0.5
    for quarters in (1, 2, 3):
        assert (picture != np.rot90(picture, quarters)).sum() > 0.1 * inside.sum()


def test_objects_are_clear_and_backgrounds_dim(clips: tuple[np.ndarray, np.ndarray]) -> None:
    frames_NHW = clips[0][:, 0]
    background_N = np.median(frames_NHW, axis=(1, 2))
    assert background_N.min() > 35
    assert background_N.max() < 115
    strongest_N = np.abs(frames_NHW - background_N[:, None, None]).max((1, 2))
    assert np.quantile(strongest_N, 0.01) > 40


def test_a_clip_is_a_pure_function_of_its_generator() -> None:
    one, two, other = (
        render_clip(np.random.default_rng(seed), "grows", size=32, num_frames=4)
        for seed in (5, 5, 6)
    )
    assert one.dtype == np.uint8
    assert one.shape == (4, 32, 32, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


# --- what a classifier can make of one frame, and of two ---------------------------------------


def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Train a small network on two thirds of the rows; return its accuracy on the last third."""
    num_train = len(labels) * 2 // 3
    features = (features - features[:num_train].mean(0)) / (features[:num_train].std(0) + 1e-6)
    inputs, targets = torch.from_numpy(features).float(), torch.from_numpy(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(inputs.shape[1], 64), torch.nn.GELU(), torch.nn.Linear(64, len(CLASSES))
        )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(network(inputs[:num_train]), targets[:num_train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = network(inputs[num_train:]).argmax(1)
    return float((predicted == targets[num_train:]).float().mean())


def frame_features(grey_NHW: np.ndarray) -> np.ndarray:
    pixels_NHW = grey_NHW.reshape(len(grey_NHW), 8, 4, 8, 4).mean((2, 4))
    return np.concatenate([object_features(grey_NHW), pixels_NHW.reshape(len(grey_NHW), -1)], 1)


@pytest.mark.parametrize("frame", [0, NUM_FRAMES // 2, NUM_FRAMES - 1])
@pytest.mark.parametrize("features", [object_features, frame_features])
def test_one_frame_does_not_give_the_class_away(clips, features, frame: int) -> None:
    frames_NTHW, labels = clips
    # Chance is 0.125; with 400 test clips its standard deviation is 0.017.
    assert accuracy(features(frames_NTHW[:, frame]), labels) < 0.2


def test_two_frames_do(clips) -> None:
    frames_NTHW, labels = clips
    one, two = (object_features(frames_NTHW[:, frame]) for frame in (10, 14))
    assert accuracy(np.concatenate([two - one, one], 1), labels) > 0.5
