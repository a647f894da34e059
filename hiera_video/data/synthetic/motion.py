"""Draw where the object of a demo clip is in each frame: eight motions, unseen in a single frame.

Every video loops (as a GIF does) in one of four coordinates: across, down, size or angle. The other
coordinates stay at a random point of the same loop. The phase of a loop is uniform at random. In
any one frame, position, size and angle therefore have the same distribution for all classes, and
only the change from frame to frame reveals the class. This needs a loop: an object that only grows
would, on average, be small in the first frame. About half of all 16-frame clips contain the jump
at the end of a loop; the motion before and after it is the same.

Shape legend: T frames. Lengths are fractions of the frame's side, measured from its centre with
x to the right and y down; angles are radians, growing clockwise as seen on the screen.
"""

from dataclasses import dataclass

import numpy as np

# Class name -> (coordinate that moves, its direction). The order is the order of the labels.
MOTIONS: dict[str, tuple[str, int]] = {
    "moves_left": ("x", -1),
    "moves_right": ("x", 1),
    "moves_up": ("y", -1),
    "moves_down": ("y", 1),
    "turns_clockwise": ("angle", 1),
    "turns_counterclockwise": ("angle", -1),
    "grows": ("size", 1),
    "shrinks": ("size", -1),
}

# With these values, an object changes enough over 16 frames (8 at stride 2): it moves by at least
# 0.18 of the frame, turns by at least 65 degrees, or changes its size by a factor of at least 1.29.
# Its centre hardly ever leaves the frame.
_LOOP_FRAMES = (24.0, 40.0)
_TRAVEL = (0.5, 0.7)
_SIZE_RATIO = (2.0, 2.6)
_MEAN_RADIUS = (0.2, 0.24)
_TURN_RATE_DEG = (4.5, 9.0)
_TILT_DEG = 15.0  # how much "left" may differ from exactly left
_ROLL_DEG = 6.0  # every object rolls slowly to and fro, by much less than a turn
_CAMERA_DRIFT = 0.004  # per frame; the slowest object moves three times as fast
_CAMERA_SHAKE = 0.006


@dataclass(frozen=True, slots=True)
class Track:
    """The object's centre, radius and angle, and the camera's displacement, frame by frame."""

    x_T: np.ndarray
    y_T: np.ndarray
    radius_T: np.ndarray
    angle_T: np.ndarray
    camera_x_T: np.ndarray
    camera_y_T: np.ndarray


def draw_track(rng: np.random.Generator, motion: str, *, num_frames: int) -> Track:
    """Draw a track of class `motion` (a key of `MOTIONS`) over `num_frames` frames.

    Every class makes the same draws in the same order, so all classes have the same distributions
    by construction. Returns float64 arrays of shape [num_frames]; `x_T` and `y_T` include the
    camera.
    """
    coordinate, direction = MOTIONS[motion]
    frames_T = np.arange(num_frames)
    steps_T = direction * frames_T / rng.uniform(*_LOOP_FRAMES)
    # The position of each coordinate in its loop, from -0.5 to 0.5.
    loops_T = {}
    for name in ("x", "y", "size"):
        start = rng.uniform()
        loops_T[name] = (start + (steps_T if name == coordinate else 0 * steps_T)) % 1.0 - 0.5

    tilt = np.radians(rng.uniform(-_TILT_DEG, _TILT_DEG))
    along_T = rng.uniform(*_TRAVEL) * loops_T["x"]
    down_T = rng.uniform(*_TRAVEL) * loops_T["y"]
    middle_x, middle_y = rng.uniform(-0.06, 0.06, size=2)
    mean_radius = rng.uniform(*_MEAN_RADIUS)
    log_ratio = np.log(rng.uniform(*_SIZE_RATIO))

    turn_T = np.radians(rng.uniform(*_TURN_RATE_DEG)) * direction * frames_T
    roll_phase, roll_rate = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.3)
    roll_T = np.radians(rng.uniform(0, _ROLL_DEG)) * np.sin(roll_phase + roll_rate * frames_T)
    start_angle = rng.uniform(0, 2 * np.pi)

    camera_x_T, camera_y_T = _draw_camera(rng, num_frames), _draw_camera(rng, num_frames)
    return Track(
        x_T=middle_x + np.cos(tilt) * along_T - np.sin(tilt) * down_T + camera_x_T,
        y_T=middle_y + np.sin(tilt) * along_T + np.cos(tilt) * down_T + camera_y_T,
        radius_T=mean_radius * np.exp(log_ratio * loops_T["size"]),
        angle_T=start_angle + roll_T + (turn_T if coordinate == "angle" else 0.0),
        camera_x_T=camera_x_T,
        camera_y_T=camera_y_T,
    )


def _draw_camera(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    drift = rng.uniform(-_CAMERA_DRIFT, _CAMERA_DRIFT)
    sway_phase, sway_rate = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8)
    frames_T = np.arange(num_frames)
    sway_T = _CAMERA_SHAKE * np.sin(sway_phase + sway_rate * frames_T)
    jerk_T = rng.normal(scale=_CAMERA_SHAKE / 2, size=num_frames)
    return drift * (frames_T - num_frames / 2) + sway_T + jerk_T
