"""Read a YAML file and its `_BASE_` files into a flat list of settings with file and line.

YAML is first composed into nodes, which know their lines. A plain load would lose the lines, and
the first of two equal keys. `_BASE_` is fvcore's convention: a path or a list of paths, relative to
the file that contains it. The settings of the file itself come last and win.
"""

import difflib
import os
from collections.abc import Iterator

import yaml
from fvcore.common.config import BASE_KEY

from hiera_video.config.settings import Reading, Setting
from hiera_video.config.shipped import shipped_configs
from hiera_video.utils.bounded_yaml import TooLargeError, compose
from hiera_video.utils.io import is_dir, is_file, open_file

_TEMPLATE = "Try one of the files in configs/ as a pattern."


def read_yaml(path: str) -> Reading:
    """Return the settings of a YAML file, those of its bases first, with the problems found.

    An invalid file raises nothing: its problems are listed, and the rest is read if possible.
    """
    reader = _Reader(with_bases=True)
    reader.read(path, asked="--cfg", chain=())
    return reader.reading


def read_yaml_text(text: str, name: str) -> Reading:
    """Return the settings of a YAML text without `_BASE_`; problems refer to it as `name`.

    Use this for untrusted text: a `_BASE_` could open any path or URL.
    """
    reader = _Reader(with_bases=False)
    reader.read_text(text, name, chain=())
    return reader.reading


class _Reader:
    def __init__(self, *, with_bases: bool) -> None:
        self.reading = Reading()
        self._with_bases = with_bases

    def read(self, path: str, *, asked: str, chain: tuple[str, ...]) -> None:
        """Read `path`, its bases first.

        `asked` names what refers to the file, and `chain` holds the files that led to it.
        """
        identity = os.path.realpath(path)
        if identity in chain:
            route = " -> ".join(map(os.path.basename, (*chain, identity)))
            self._give_up(
                f"{asked} must not form a cycle, got {route}. "
                "Try removing one of these _BASE_ lines."
            )
            return
        text = self._text(path, asked=asked)
        if text is not None:
            self.read_text(text, path, chain=(*chain, identity))

    def read_text(self, text: str, path: str, *, chain: tuple[str, ...]) -> None:
        """Read the text of the file `path`, its bases first."""
        try:
            loader, root = compose(text)
            self._read_document(loader, root, path, chain=chain)
        except TooLargeError as error:
            self._give_up(f"{path} must be as small as a config, got {error}.")
        except yaml.YAMLError as error:
            self._give_up(_yaml_problem(path, error))
        except RecursionError:
            self._give_up(f"{path} must hold sections of keys, got keys nested too deep.")

    def _text(self, path: str, *, asked: str) -> str | None:
        problem = _why_not_a_file(path)
        if not problem:
            try:
                with open_file(path) as file:
                    text: str = file.read()
                return text
            except UnicodeDecodeError:
                problem = f"{path!r}, which is not a text file. {_TEMPLATE}"
            except OSError as error:
                problem = f"{path!r}, which cannot be read: {error.strerror or error}."
        self._give_up(f"{asked} must be a YAML file, got {problem}")
        return None

    def _read_document(
        self,
        loader: yaml.SafeLoader,
        root: yaml.Node | None,
        path: str,
        *,
        chain: tuple[str, ...],
    ) -> None:
        if root is None:
            self._give_up(f"{path} must hold keys and values, got an empty file. {_TEMPLATE}")
            return
        if not isinstance(root, yaml.MappingNode):
            self._give_up(
                f"{path}:{_line(root)}: the file must hold keys and values, got a single "
                f"{'list' if isinstance(root, yaml.SequenceNode) else 'text'}. {_TEMPLATE}"
            )
            return
        own = []
        for setting in self._leaves(loader, root, path):
            if setting.name == BASE_KEY and not self._with_bases:
                self._give_up(
                    f"{setting.place}: {BASE_KEY} must not be in a saved config, which is complete "
                    "without it."
                )
            elif setting.name == BASE_KEY:
                self._read_bases(setting, path, chain=chain)
            else:
                own.append(setting)
        self.reading.settings.extend(own)

    def _read_bases(self, setting: Setting, path: str, *, chain: tuple[str, ...]) -> None:
        bases = setting.value if isinstance(setting.value, list) else [setting.value]
        for base in bases:
            asked = f"{setting.place}: {BASE_KEY}"
            if isinstance(base, str) and base:
                self.read(_base_path(base, path), asked=asked, chain=chain)
            else:
                self._give_up(f"{asked} must be a path or a list of paths, got {base!r}.")

    def _leaves(
        self,
        loader: yaml.SafeLoader,
        node: yaml.MappingNode,
        path: str,
        *,
        prefix: str = "",
        outer: tuple[yaml.Node, ...] = (),
    ) -> Iterator[Setting]:
        self._find_duplicates(node, path, prefix=prefix)
        loader.flatten_mapping(node)  # resolves YAML's own merge key, "<<"
        outer = (*outer, node)
        for key_node, value_node in node.value:
            place = f"{path}:{_line(key_node)}"
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(f"{place}: a key must be a name, got a list or mapping.")
                continue
            name = prefix + key_node.value
            if any(value_node is enclosing for enclosing in outer):
                self._note(f"{place}: {name} must not contain itself, got an alias to it.", name)
            elif isinstance(value_node, yaml.MappingNode) and value_node.value:
                yield from self._leaves(loader, value_node, path, prefix=f"{name}.", outer=outer)
            else:
                try:
                    yield Setting(name, loader.construct_object(value_node, deep=True), place)
                except (yaml.YAMLError, ValueError) as error:
                    # A tag such as !!python/object, or a date such as 2024-99-99.
                    problem = getattr(error, "problem", None) or error
                    self._note(f"{place}: {name} must be a plain value, got {problem}.", name)

    def _note(self, problem: str, faulty: str = "") -> None:
        self.reading.problems.append(problem)
        self.reading.faulty.update([faulty] if faulty else [])

    def _give_up(self, problem: str) -> None:
        self.reading.problems.append(problem)
        self.reading.complete = False

    def _find_duplicates(self, node: yaml.MappingNode, path: str, *, prefix: str) -> None:
        lines: dict[str, list[int]] = {}
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                lines.setdefault(key_node.value, []).append(_line(key_node))
        for key, at in lines.items():
            if len(at) > 1:
                numbers = " and ".join(map(str, at))
                self._note(
                    f"{path}:{at[1]}: {prefix}{key} must be set once in a file, got it on lines "
                    f"{numbers}. Try deleting all but one.",
                    prefix + key,
                )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_url(path: str) -> bool:
    return "://" in path


def _base_path(base: str, path: str) -> str:
    base = os.path.expanduser(base)
    if os.path.isabs(base) or _is_url(base):
        return base
    if _is_url(path):
        return f"{path.rsplit('/', 1)[0]}/{base}"
    return os.path.normpath(os.path.join(os.path.dirname(path), base))


def _why_not_a_file(path: str) -> str:
    """Return the problem of a path, in words that follow "got", or "" if it is a file."""
    if _is_url(path) or is_file(path):
        return ""
    if not path:
        return "an empty path."
    folder, name = os.path.split(path)
    if is_dir(path):
        found = ", ".join(sorted(_yaml_names(path)))
        return f"the directory {path!r}. " + (f"It holds {found}." if found else _TEMPLATE)
    if folder and not is_dir(folder):
        near = difflib.get_close_matches(path.removeprefix("configs/"), shipped_configs(), n=1)
        advice = f"Did you mean {near[0]}?" if near else _TEMPLATE
        return f"{path!r}, but there is no directory {folder!r}. {advice}"
    stems = {os.path.splitext(entry)[0]: entry for entry in _yaml_names(folder or ".")}
    near = difflib.get_close_matches(os.path.splitext(name)[0], stems, n=1)
    advice = f"Did you mean {os.path.join(folder, stems[near[0]])}?" if near else _TEMPLATE
    return f"{path!r}, which does not exist. {advice}"


def _yaml_names(folder: str) -> list[str]:
    try:
        entries = os.listdir(folder)
    except OSError:  # a folder that can be entered but not listed has nothing to suggest
        return []
    return [entry for entry in entries if entry.endswith((".yaml", ".yml"))]


def _yaml_problem(path: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark else path
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    cause = ", ".join(part for part in parts if part) or " ".join(str(error).split())
    return (
        f"{place}: the file must be valid YAML, got an error {cause}. "
        "Try spaces for indentation, one space after each colon, and closed brackets and quotes."
    )
