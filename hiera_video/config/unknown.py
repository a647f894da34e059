"""Explain a key that does not exist: PySlowFast's name for another key, or a misspelling."""

import difflib
from dataclasses import dataclass

from hiera_video.config.pyslowfast import RENAMED, replacement
from hiera_video.config.schema import key_specs, sections


@dataclass(frozen=True)
class Unknown:
    """The message about an unknown key, and the keys that may have been meant."""

    message: str
    meant: tuple[str, ...] = ()


def explain_unknown(name: str) -> Unknown:
    """Explain a dotted name that is not a key: renamed, elsewhere, misspelt, or missing."""
    specs = key_specs()
    if name in RENAMED:
        new = RENAMED[name]
        return Unknown(f"{name} is PySlowFast's name; here it is {new}.", (new,))
    entry, instead = replacement(name)
    if entry.endswith(".*"):
        part = entry.removesuffix(".*")
        return Unknown(
            f"{part} is a section of PySlowFast or a fork; here {instead}. Try without it."
        )
    if entry.endswith("*"):
        return Unknown(f"{entry} are keys of PySlowFast; here {instead}. Try without them.")
    if entry:
        return Unknown(f"{name} is a key of PySlowFast; here {instead}. Try without it.")
    section, _, leaf = name.rpartition(".")
    if name in sections():
        first = next(spec for spec in specs if spec.startswith(f"{name}."))
        return Unknown(
            f"{name} must be a section of keys, got a value. Try {first}: with a space after the "
            "colon."
        )
    if section in specs:
        return Unknown(f"{section} must be a value, got keys under it.", (section,))
    top = name.split(".")[0]
    meant = _meant(name, section, leaf)
    if meant:
        return Unknown(f"{name} is not a key. Did you mean {' or '.join(meant)}?", meant)
    if "." in name and top not in sections():
        return Unknown(f"{top} is not a section. The sections are {', '.join(sections())}.")
    return Unknown(f"{name} is not a key. {_neighbours(section)}")


def _meant(name: str, section: str, leaf: str) -> tuple[str, ...]:
    """Return the likely keys: in another case, with a typo, elsewhere, or by part of the name."""
    by_folded = {spec.casefold(): spec for spec in key_specs()}
    name, section, leaf = name.casefold(), section.casefold(), leaf.casefold()
    if name in by_folded:
        return (by_folded[name],)
    here = [key for key in by_folded if key.rpartition(".")[0] == section]
    slip = difflib.get_close_matches(name, here, n=1, cutoff=0.85)
    elsewhere = [key for key in by_folded if key.rpartition(".")[2] == leaf]
    part = [key for key in here if len(leaf) > 2 and leaf in key.rpartition(".")[2]]
    near = difflib.get_close_matches(name, by_folded, n=1, cutoff=0.75)
    # A longer list does not help: ENABLE is a key of most sections.
    found = next((keys for keys in (slip, elsewhere, part, near) if 0 < len(keys) <= 3), [])
    return tuple(by_folded[key] for key in found)


def _neighbours(section: str) -> str:
    prefix = f"{section}." if section else ""
    names = [spec for spec in key_specs() if spec.rpartition(".")[0] == section]
    if not section:
        names += list(sections())
    listing = ", ".join(name.removeprefix(prefix) for name in names)
    return f"{section or 'The top level'} has {listing}."
