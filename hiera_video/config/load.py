"""Turn a YAML file and KEY VALUE pairs into a frozen `Config`, or report all their problems."""

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from hiera_video.config.check import contradictions
from hiera_video.config.describe import to_dict
from hiera_video.config.overrides import PLACE, read_overrides
from hiera_video.config.rules import read_value
from hiera_video.config.schema import Config, key_specs, sections
from hiera_video.config.settings import ConfigError, Reading, Setting
from hiera_video.config.shipped import find_config
from hiera_video.config.unknown import explain_unknown
from hiera_video.config.yaml_keys import read_yaml, read_yaml_text


def load_config(path: str | None, overrides: Sequence[str] = ()) -> Config:
    """Load a YAML file and apply overrides to it.

    Args:
        path: the file, which may extend others with `_BASE_`, or the name of a shipped config,
            such as "Kinetics/HIERA_B.yaml"; None: only the defaults.
        overrides: `KEY, VALUE, KEY, VALUE, ...`, each value as YAML writes it.

    Raises:
        ConfigError: its text is the problem with its origin ("FILE:LINE: ..." or "command
            line: ..."), or lists every problem in the files, the overrides and their combination.
    """
    path = None if path is None else find_config(path)
    file = read_yaml(path) if path is not None else Reading()
    return _resolved(file, overrides, source=path if path is not None else f"the {PLACE}")


def load_saved_config(text: str, name: str) -> Config:
    """Load the YAML text that a run saved with its weights; errors refer to it as `name`.

    The text is untrusted, so `_BASE_` is refused and no other file is opened.

    Raises:
        ConfigError: as in `load_config`.
    """
    return _resolved(read_yaml_text(text, name), (), source=name)


def _resolved(file: Reading, overrides: Sequence[str], *, source: str) -> Config:
    carrier = _Carrier()
    carrier.apply(file)
    carrier.apply(read_overrides(overrides))
    cfg = carrier.config()
    problems = list(carrier.problems)
    if file.complete:
        for key, message in contradictions(cfg, faulty=carrier.faulty):
            problems.append(f"{carrier.places.get(key, 'defaults')}: {message}")
    if problems:
        if all(problem.startswith(f"{PLACE}: ") for problem in problems):
            source = f"the {PLACE}"  # the file is not at fault
        raise ConfigError(problems, source=source)
    return cfg


class _Carrier:
    """Fill a CfgNode of fvcore with settings, and collect the problems."""

    def __init__(self) -> None:
        self._node = CfgNode(to_dict(Config()))
        self.problems: list[str] = []
        self.places: dict[str, str] = {}
        self.faulty: set[str] = set()

    def apply(self, reading: Reading) -> None:
        """Set every key of a file or command line, or note why it cannot be set."""
        self.problems += reading.problems
        self.faulty |= reading.faulty
        for setting in reading.settings:
            self._set(setting)

    def _set(self, setting: Setting) -> None:
        if setting.value in (None, {}) and setting.name in sections():
            return  # a section whose keys are all commented out
        spec = key_specs().get(setting.name)
        if spec is None:
            unknown = explain_unknown(setting.name)
            self.faulty.update(unknown.meant)
            self._note(setting.place, unknown.message)
            return
        try:
            value = read_value(spec, setting.value)
        except ValueError as error:
            self.faulty.add(setting.name)
            self._note(setting.place, str(error))
            return
        # CfgNode evaluates text as a Python literal; quoting keeps it as text.
        literal = repr(value) if isinstance(value, str) else value
        self._node.merge_from_list([setting.name, literal])
        self.places[setting.name] = setting.place

    def config(self) -> Config:
        """Return the settings so far as a frozen Config."""
        values = {name: value for name, value in self._node.items() if name not in sections()}
        for name, section in sections().items():
            keys = self._node[name].items()
            values[name] = section(**{k: tuple(v) if isinstance(v, list) else v for k, v in keys})
        return Config(**values)

    def _note(self, place: str, message: str) -> None:
        # Report a section that does not exist once, not once for each of its keys.
        if not any(known.endswith(f": {message}") for known in self.problems):
            self.problems.append(f"{place}: {message}")
