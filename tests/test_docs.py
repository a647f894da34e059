"""Every command, link, path, key and import in README and docs/ is one that exists.

A command of a tool is parsed by the tool itself, and its KEY VALUE pairs by the config.
"""

import argparse
import ast
import importlib
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hiera_video.__main__ import COMMANDS
from hiera_video.config import load_config
from hiera_video.config.pyslowfast import REPLACED
from hiera_video.config.schema import key_specs
from hiera_video.config.unknown import explain_unknown
from hiera_video.utils.errors import UserError

from .doc_pages import PAGES, ROOT, Command, blocks, commands, links, name_of, spans, split_shell

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

ANY_CONFIG = "configs/Kinetics/HIERA_B.yaml"
# Programs that are not this project's, and need no more than their names.
OTHERS = {
    *("cd", ".", "source", "export", "mkdir", "cp", "mv", "ls", "cat", "head", "rm", "ln", "nproc"),
    *(
        "git",
        "tensorboard",
        "curl",
        "ffmpeg",
        "hf",
        "apt-get",
        "sudo",
        "ssh",
        "sbatch",
        "kill",
        "nvidia-smi",
    ),
}
# What an installed package brings, and what may be said with `python -m`.
MODULES = {"venv", "pip", "pytest", "mkdocs", "tensorboard", "tensorboard.main"}
# What a page may call a file of the reader's own.
READERS = {"mine.py", "x.py"}
FOLDERS = ("configs/", "tools/", "tests/", "docs/", "hiera_video/", ".ci/")
by_name = pytest.mark.parametrize("page", PAGES, ids=name_of)


class Parsed(Exception):
    """Raised in place of what a tool would do, once its command line is parsed."""


@cache
def main_of(script: str) -> Any:
    """Return the `main` of a tool or the function of a command, without running it."""
    if script in COMMANDS:
        module = importlib.import_module(f"hiera_video.commands.{COMMANDS[script].module}")
        return getattr(module, COMMANDS[script].function)
    sys.path.insert(0, str((ROOT / script).parent))  # as python does
    try:
        return runpy.run_path(str(ROOT / script), run_name="not_main")["main"]
    finally:
        sys.path.pop(0)


def parse(script: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what a tool's own parser makes of the words after its name."""
    ways = ("parse_args", "parse_intermixed_args")
    real = {way: getattr(argparse.ArgumentParser, way) for way in ways}

    def stopping(way):
        def parse_and_stop(self, args=None, namespace=None):
            raise Parsed(real[way](self, args, namespace))

        return parse_and_stop

    main = main_of(script)
    with monkeypatch.context() as patch:
        for way in ways:
            patch.setattr(argparse.ArgumentParser, way, stopping(way))
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(Parsed) as stopped:
            main()
    return stopped.value.args[0]


def check_config(arguments: Any) -> None:
    """Hold the KEY VALUE pairs of a command against the config that it names, or any other."""
    named = getattr(arguments, "cfg", None)
    for path in named if isinstance(named, list) else [named]:
        for option in ("overrides", "pretrain", "fine_tune"):
            pairs = getattr(arguments, option, None)
            known = path if path and path.startswith("configs/") else ANY_CONFIG
            if pairs or known == path:
                load_config(known, [word for word in pairs or () if word != "..."])


def filled(words: tuple[str, ...], script: str) -> tuple[str, ...]:
    """Return the words with a config in place of `...`, which stands for what is left out."""
    if "..." in words and "--cfg" not in words and script == "tools/run_net.py":
        at = words.index("...")
        return (*words[:at], "--cfg", ANY_CONFIG, *words[at + 1 :])
    return words


def check_python(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    script, *rest = words
    if script == "-c":
        compile(rest[0], "<command>", "exec")
    elif script == "-m":
        assert rest[0] in MODULES
        if rest[0] == "pip":
            check_command(("pip", *rest[1:]), monkeypatch)
    else:
        assert (ROOT / script).is_file(), script
        check_config(parse(script, filled(tuple(rest), script), monkeypatch))


def check_command(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise for a command that would not be taken."""
    program, *rest = words
    for word in words:
        if word.startswith(FOLDERS):
            assert list(ROOT.glob(word)), f"{word} is not there"
    if re.fullmatch(r"(\S*/)?python3?", program):
        check_python(tuple(rest), monkeypatch)
    elif program == "torchrun":
        script = next((at for at, word in enumerate(rest) if word.endswith(".py")), len(rest))
        check_torchrun(rest[:script])
        if rest[script:]:
            check_python(tuple(rest[script:]), monkeypatch)
    elif program == "hiera-video":
        check_hiera_video(rest, monkeypatch)
    elif program == "make":
        assert {word for word in rest if "=" not in word} <= make_targets()
    elif program == "pip":
        asked = re.findall(r"\[([\w,]+)\]", " ".join(rest))
        assert {name for names in asked for name in names.split(",")} <= extras()
    elif program == "pytest":
        assert (ROOT / rest[0]).exists()
    else:
        assert program in OTHERS, f"{program} is not a program that the docs may name"


def check_hiera_video(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name, *rest = words
    assert name in {*COMMANDS, "--help"}, f"hiera-video has no command {name}"
    if name in COMMANDS:
        check_config(parse(name, tuple(rest), monkeypatch))


def check_torchrun(options: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    get_args_parser().parse_args([*options, "script.py"])


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


def test_pages_are_found():
    assert len(PAGES) > 10
    assert sum(len(commands(page)) for page in PAGES) > 50


@by_name
def test_commands_are_taken(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    wrong = list(wrong_commands(commands(page), monkeypatch))
    assert not wrong, "\n".join(wrong)


def wrong_commands(given: list[Command], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for command in given:
        try:
            check_command(command.words, monkeypatch)
        except (AssertionError, UserError, SystemExit, pytest.fail.Exception) as error:
            yield f"{command}\n    {error}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@by_name
def test_bash_reads_the_blocks(page):
    text = "\n".join(blocks(page, "bash"))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@by_name
def test_python_blocks_compile_and_import_what_is_there(page):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "hiera_video":
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_the_api_reference_shows_what_there_is():
    page = (ROOT / "docs" / "api.md").read_text()
    names = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    assert len(names) > 15
    for name in names:
        pkgutil.resolve_name(name)


@by_name
def test_links_and_pictures_are_there(page):
    missing = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            missing.append(target)
    assert missing == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    without_code = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in headings}


@by_name
def test_paths_in_prose_are_there(page):
    """`data/x.py` may stand for hiera_video/data/x.py, and `*` for several files."""
    missing = []
    for text in spans(page):
        if not re.fullmatch(r"[a-z_]+/[\w./*-]+\.(py|yaml|md|sbatch)", text):
            continue
        there = [*ROOT.glob(text), *(ROOT / "hiera_video").glob(text)]
        if not there and Path(text).name not in READERS:
            missing.append(text)
    assert missing == []


@by_name
def test_config_keys_in_prose_are_known(page):
    """The docs may name a renamed key, as long as the error for it gives the new name.

    The page on the differences may name PySlowFast's other keys, which the config explains.
    """
    theirs = REPLACED if page.name == "differences.md" else {}
    sections = "|".join({key.split(".")[0] for key in key_specs() if "." in key})
    unknown = []
    for text in spans(page):
        for key in re.findall(rf"\b(?:{sections})\.[A-Z][A-Z0-9_]+\b", text):
            if key not in {*key_specs(), *theirs} and not explain_unknown(key).meant:
                unknown.append(key)
    assert unknown == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("python tools/run_net.py --cfg configs/Kinetics/HIERA_B.yaml NUM_GPU 0", "NUM_GPUS"),
        ("python tools/run_net.py --cfg configs/Kinetics/HIERA_X.yaml NUM_GPUS 0", "not there"),
        ("python tools/predict.py one.mp4 --checkpoint X --top-q 3", "2"),
        ("python tools/gone.py", "gone.py"),
        ("torchrun --processes 8 tools/run_net.py --cfg configs/Demo/HIERA_MICRO.yaml", "2"),
        ("make tea", "tea"),
        ("pip install -e '.[none]'", "none"),
        ("frobnicate", "frobnicate"),
        ("cd x && python tools/doctor.py --nonsense", "2"),
        ("hiera-video pedict one.mp4", "pedict"),
        ("hiera-video predict one.mp4 --top-q 3", "2"),
    ],
)
def test_the_checks_find_what_they_look_for(line, says, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = [Command("page", words) for words in split_shell(line)]
    assert says in next(wrong_commands(given, monkeypatch))


def test_a_script_is_split_as_a_shell_does():
    script = """
    A=1 B="two words" python x.py --a $A \\
        --b '$A b' > out.txt  # a comment
    for seed in 3 4; do python y.py SEED $seed; done
    cd x && make demo | head -3
    """
    assert split_shell(script) == [
        ("python", "x.py", "--a", "1", "--b", "1 b"),
        ("python", "y.py", "SEED", "3"),
        ("cd", "x"),
        ("make", "demo"),
        ("head", "-3"),
    ]
