"""Read KEY VALUE pairs from a command line, as users of PySlowFast type them."""

import ast
import sys
from collections.abc import Sequence

from hiera_video.config.rules import value_text
from hiera_video.config.schema import key_specs, sections
from hiera_video.config.settings import Reading, Setting
from hiera_video.utils.errors import UserError

PLACE = "command line"
# Options of PySlowFast that torchrun replaces.
_OF_LAUNCHER = ("--init_method", "--shard_id", "--num_shards")


def read_overrides(words: Sequence[str]) -> Reading:
    """Return the settings of `KEY VALUE KEY VALUE ...`, with the problems found.

    A list may be one word, "[0.45,0.45,0.45]", or the several words into which a shell splits a
    list with spaces. The last value of a repeated key wins, so that pairs can be appended to those
    in a script. Reading continues after a problem: a key without a value does not shift the pairs
    after it.
    """
    reading = Reading()
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        problem = _not_a_key(word)
        if problem:
            reading.problems.append(f"{PLACE}: {problem}")
            reading.faulty.add(word.partition("=")[0])
            # The word after a flag is its value, unless it is the next key or flag.
            if "=" not in word and position < len(words) and not _starts_pair(words[position]):
                position += 1
            continue
        if position == len(words) or _starts_pair(words[position]):
            reading.faulty.add(word)
            reading.problems.append(
                f"{PLACE}: overrides must be KEY VALUE pairs, got {word} without a value. "
                f"Try {word} {_example(word)}."
            )
            continue
        size = _value_size(words[position:])
        reading.settings.append(Setting(word, _unquoted(words[position : position + size]), PLACE))
        position += size
    return reading


def _starts_pair(word: object) -> bool:
    """Return whether a word in the place of a value looks like the next key or flag instead."""
    if not isinstance(word, str):
        return False
    key, equals, _ = word.partition("=")
    section, dot, _ = key.partition(".")
    dotted = dot != "" and section in sections() and key.isupper()
    return dotted or (equals != "" and key in key_specs()) or word.startswith("--")


def _not_a_key(word: str) -> str:
    if word.startswith("-"):
        return (
            f"overrides must be KEY VALUE pairs, got the flag {word}. Try flags such as --cfg "
            "first, then keys without dashes, as in SOLVER.BASE_LR 0.001."
        )
    key, equals, value = word.partition("=")
    if equals:
        return f"overrides must be KEY VALUE pairs, got {word}. Try {key} {value or 'VALUE'}."
    return ""


def _example(word: str) -> str:
    spec = key_specs().get(word)
    if spec is None:
        return "VALUE"
    if spec.kind is bool:
        return "True"
    if spec.kind is tuple:
        return f'"{value_text(spec.default)}"'
    return str(spec.default) or "VALUE"


def _value_size(words: Sequence[str]) -> int:
    """Return the number of words of the first value: more than one for an unquoted list."""
    if isinstance(words[0], str) and words[0].startswith(("[", "(")):
        for size, word in enumerate(words, start=1):
            if not isinstance(word, str) or (size > 1 and word in key_specs()):
                break
            if word.endswith(("]", ")")):
                return size
    return 1


def _unquoted(words: Sequence[str]) -> object:
    if len(words) > 1:
        return " ".join(words)
    value = words[0]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return value


def command_words(argv: Sequence[str] | None) -> list[str]:
    """Return the words of a command line (None: this process's) without PySlowFast's --opts.

    Raises:
        UserError: the words set up the rendezvous, which is torchrun's task here.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for option in (word.split("=")[0] for word in words):
        if option in _OF_LAUNCHER:
            raise UserError(
                f"{option} is an option of PySlowFast; here torchrun sets up the rendezvous. Try "
                "torchrun --nnodes 2 --nproc-per-node 8 tools/run_net.py --cfg ..."
            )
    return [word for word in words if word != "--opts"]
