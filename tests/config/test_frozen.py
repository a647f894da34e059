"""The settings that tables measure on do not change under their name."""

from dataclasses import asdict
from pathlib import Path

import pytest
import simplejson

from hiera_video.config import load_config
from hiera_video.data.synthetic.manifest import DemoParameters

FROZEN = Path(__file__).parents[1] / "golden" / "motions_v1.json"


def settings_of(name):
    """Return SECTION.KEY -> value of what decides a result; keys that came later are not frozen."""
    found = {}
    for section, values in asdict(load_config(f"configs/Demo/{name}.yaml", [])).items():
        if section in ("TRAIN", "TEST", "DATA", "MODEL", "MASK", "AUG", "MIXUP", "SOLVER"):
            found |= {f"{section}.{key}": value for key, value in values.items()}
    return simplejson.loads(simplejson.dumps(found))  # tuples become lists


@pytest.mark.parametrize("name", ["MOTIONS_V1", "MOTIONS_V1_MAE_PT"])
def test_frozen_settings_stay(name):
    frozen = simplejson.loads(FROZEN.read_text())[name]
    now = settings_of(name)
    changed = {key: (value, now.get(key)) for key, value in frozen.items() if now.get(key) != value}
    assert not changed, f"{name} is frozen: give other settings another name"
    assert len(frozen) > 70


def test_the_videos_of_the_frozen_settings_stay():
    assert DemoParameters() == DemoParameters(200, 40, 72, 24, 0, 3)
