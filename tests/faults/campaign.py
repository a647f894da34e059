"""Feed hostile input to every entry point: python tests/faults/campaign.py configs --cases 12000

`configs`: YAML files and KEY VALUE words. `weights`: damaged checkpoints to start from, to test,
for `load_model` and for `Predictor`. `resumes`: damaged checkpoints in OUTPUT_DIR. `exports`:
damaged exported folders. `lists`: lists of videos. `shards`: indexes of tar files, and tar files.

A case must end in a result or in a UserError without a traceback. The exit status is 1 after any
other exception, a process that dies or hangs, a file written outside the folder of the case, a
process that was started, or a connection to another machine. `--only NUMBER --keep FOLDER` repeats
one case.
"""

import argparse
import collections
import contextlib
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import simplejson
import torch

from hiera_video import Predictor, load_model
from hiera_video.commands.shards import main as make_shards
from hiera_video.config import load_config, to_yaml
from hiera_video.config.schema import key_specs
from hiera_video.data.build import build_loader, read_class_names, read_records
from hiera_video.data.synthetic.manifest import DemoParameters
from hiera_video.data.synthetic.videos import make_demo_data
from hiera_video.data.workers.pool import Done, WorkerPool
from hiera_video.data.workers.process import Job
from hiera_video.engine.launch import launch
from hiera_video.engine.preflight import preflight
from hiera_video.export.model import Export, export_model
from hiera_video.models.load import from_pretrained
from hiera_video.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "configs/Demo/HIERA_MICRO.yaml")
# The smallest run: two batches of two videos.
SMALL = (  # noqa: SIM905
    "NUM_GPUS 0 DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 32 "
    "DATA.TEST_CROP_SIZE 32 TRAIN.BATCH_SIZE 8 DATA_LOADER.NUM_WORKERS 0 SOLVER.MAX_EPOCH 1 "
    "SOLVER.WARMUP_EPOCHS 0 TEST.NUM_TEMPORAL_CLIPS 1 TEST.NUM_SPATIAL_CROPS 1 TEST.ENABLE False "
    "TEST.VIEWS_TABLE False TENSORBOARD.ENABLE False TRAIN.EVAL_PERIOD 100 AUG.ENABLE False "
    "MODEL.DROP_PATH_RATE 0.0"
).split()
_MEMORY_BYTES = 12 << 30  # limit of the address space, which only a decompression bomb exceeds
_LONGEST_LINE = 2000
OUTCOMES = {
    "result": "completed",
    "refused": "a UserError",
    "long": f"a UserError with a line of over {_LONGEST_LINE} letters or a control character",
    "bug": "another exception",
    "outside": "a file outside, a process or a connection",
    "hung": "killed at the deadline",
    "died": "its process died",
}
FINE = {"result", "refused"}


# Events that a case must not cause, seen by Python's audit hook in the process that runs it.

_watch: dict[str, Any] = {"folder": None, "seen": []}
_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_HARMLESS = ("uname", "fc-list")  # started by Python's `platform` and matplotlib's font search
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch["folder"] is None:
        return
    if event == "open":
        path, _, flags = arguments
        wants = flags if isinstance(flags, int) else 0
        writes = wants & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes and isinstance(path, str | bytes):
            _note(path, event)
    elif event in _WRITES:
        _note(arguments[0], event)
    elif event in _STARTS and arguments[0] not in _HARMLESS:
        _watch["seen"].append(f"{event} {arguments[:2]}"[:300])
    elif event == "socket.connect" and not _is_here(arguments[1]):
        _watch["seen"].append(f"{event} {arguments[1]}")


def _is_here(address: Any) -> bool:
    return not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1")


def _note(path: str | bytes | int, event: str) -> None:
    if isinstance(path, int):
        return
    full = os.path.realpath(os.fsdecode(path))
    if not full.startswith((_watch["folder"], "/dev/", "/memfd:")):
        _watch["seen"].append(f"{event} {full}")


def attempt(task: tuple[str, int, int, str, str], job: Job) -> tuple[str, str]:
    """Run a case in its own folder; return its outcome and a note. Called in a worker."""
    kind, number, seed, common, folder = task
    job.begin(0)
    _prepare_process()
    here = Path(folder).resolve()
    own = here / "own"  # temporary files and settings of the process
    own.mkdir(parents=True, exist_ok=True)
    os.environ.update(TMPDIR=str(own), HOME=str(own), MPLCONFIGDIR=str(own))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(own)
    tempfile.tempdir = None
    os.chdir(here)
    rng = np.random.default_rng([seed, number])
    said = here / "said"
    with open(said, "w", encoding="utf-8", errors="surrogatepass") as out:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                case = KINDS[kind](rng, Path(common), here)
                _watch.update(folder=str(here), seen=[])
                case()
            outcome, note = "result", ""
        except UserError as error:
            outcome, note = _check_line(str(error))
        except KeyboardInterrupt:
            raise
        except BaseException:
            outcome, note = "bug", traceback.format_exc()
        finally:
            _watch["folder"] = None
    if outcome in FINE and "Traceback" in said.read_text("utf-8", "replace"):
        outcome, note = "bug", said.read_text("utf-8", "replace")[-3000:]
    if outcome in FINE and _watch["seen"]:
        outcome, note = "outside", "; ".join(_watch["seen"])
    return outcome, note.encode("utf-8", "backslashreplace").decode()


def _check_line(text: str) -> tuple[str, str]:
    lines = text.split("\n")
    odd = any(not c.isprintable() and c not in "\t\n" for c in text)
    if odd or any(len(line) > _LONGEST_LINE for line in lines) or "Traceback" in text:
        return "long", ascii(text[:3000])
    return "refused", text


_prepared = False


def _prepare_process() -> None:
    global _prepared
    if not _prepared:
        _prepared = True
        torch.set_num_threads(1)
        sys.dont_write_bytecode = True  # bytecode would be a file outside the case's folder
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
        sys.addaudithook(_audit)


# The kinds of cases. Each function makes its input and returns the function to try with it.

Case = Callable[[], object]


def configs(rng: np.random.Generator, common: Path, here: Path) -> Case:
    """Change a shipped config and its base, then run all checks before a run."""
    known = {name: spec.default for name, spec in key_specs().items()}
    path: Path = hostile.pick(rng, sorted(ROOT.glob("configs/*/*.yaml")))
    words = hostile.overrides(rng, known) if rng.random() < 0.7 else []
    if rng.random() < 0.6:
        changed = hostile.yaml_text(rng, path.read_text(), known)
        for base in path.parent.glob("_base_*.yaml"):
            shutil.copy(base, here)
        path = here / "config.yaml"
        path.write_bytes(changed)
    data = ["NUM_GPUS", "0", "DATA.PATH_TO_DATA_DIR", str(common / "data")]
    data += ["OUTPUT_DIR", str(here / "output"), "MODEL.NUM_CLASSES", "8"]
    data += ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics"]

    def case() -> None:
        cfg = load_config(str(path), [*data, *words])
        assert load_config_text(to_yaml(cfg), here) == cfg
        preflight(cfg)

    return case


def load_config_text(text: str, here: Path) -> Any:
    """Load the text of a config in the form that a run saves."""
    saved = here / "saved.yaml"
    saved.write_text(text, encoding="utf-8")
    return load_config(str(saved))


def small_config(common: Path, here: Path, *more: str) -> Any:
    """Return the config of a tiny run in the case's folder."""
    where = ["DATA.PATH_TO_DATA_DIR", str(common / "data"), "OUTPUT_DIR", str(here / "output")]
    return load_config(DEMO, [*SMALL, *where, *more])


def trained_content(common: Path) -> Any:
    """Return the content of the tiny run's checkpoint."""
    (path,) = common.glob("output/checkpoints/checkpoint_epoch_00001.pyth")
    return torch.load(path, weights_only=True)


def weights(rng: np.random.Generator, common: Path, here: Path) -> Case:
    """Load a damaged checkpoint as weights."""
    path = here / "weights.pyth"
    path.write_bytes(hostile.checkpoint_file(rng, trained_content(common)))
    doors: tuple[Case, ...] = (
        lambda: launch(small_config(common, here, "TRAIN.CHECKPOINT_FILE_PATH", str(path))),
        lambda: launch(
            small_config(
                *(common, here, "TEST.CHECKPOINT_FILE_PATH", str(path)),
                *("TRAIN.ENABLE", "False", "TEST.ENABLE", "True"),
            )
        ),
        lambda: load_model("hiera_micro_8x64", checkpoint=str(path)),
        lambda: Predictor(str(path)),
    )
    return hostile.pick(rng, doors)


def resumes(rng: np.random.Generator, common: Path, here: Path) -> Case:
    """Resume a run from a damaged checkpoint in OUTPUT_DIR."""
    folder = here / "output/checkpoints"
    folder.mkdir(parents=True)
    content = hostile.checkpoint_file(rng, trained_content(common))
    (folder / "checkpoint_epoch_00001.pyth").write_bytes(content)
    return lambda: launch(small_config(common, here, "SOLVER.MAX_EPOCH", "2"))


def exports(rng: np.random.Generator, common: Path, here: Path) -> Case:
    """Load a damaged exported folder."""
    folder = here / "model"
    shutil.copytree(common / "exported", folder)
    facts = folder / "hiera_video.json"
    if rng.random() < 0.7:
        name = hostile.pick(rng, ["hiera_video.json", "hiera_video.json", "config.json"])
        content = simplejson.loads((folder / name).read_text())
        (folder / name).write_bytes(hostile.json_file(rng, content))
    else:
        (path,) = folder.glob("*.safetensors")
        path.write_bytes(hostile.damaged(rng, path.read_bytes()))
    assert facts.exists()
    if rng.random() < 0.3:
        return lambda: from_pretrained(str(folder))
    video = str(next((common / "data").rglob("*.mp4")))
    return lambda: Predictor(str(folder))(video)


def lists(rng: np.random.Generator, common: Path, here: Path) -> Case:
    """Read a list of videos with unusual lines and, in some cases, unusual class names."""
    data = here / "data"
    shutil.copytree(common / "data", data)
    lines = (data / "train.csv").read_text().splitlines()
    (data / "train.csv").write_bytes(hostile.list_file(rng, lines))
    if rng.random() < 0.3:
        names = (data / "classes.txt").read_bytes()
        (data / "classes.txt").write_bytes(hostile.damaged(rng, names))
    return lambda: read_some(small_config(common, here, "DATA.PATH_TO_DATA_DIR", str(data)))


def shards(rng: np.random.Generator, common: Path, here: Path) -> Case:
    """Read videos with a changed shard index or from a damaged shard."""
    data = here / "data"
    shutil.copytree(common / "shards", data)
    if rng.random() < 0.7:
        index = simplejson.loads((data / "train.json").read_text())
        (data / "train.json").write_bytes(hostile.json_file(rng, index))
    else:
        (tar,) = data.glob("train-*.tar")
        tar.write_bytes(hostile.damaged(rng, tar.read_bytes()))
        if rng.random() < 0.5:
            (data / "train.json").unlink()
    words = ["DATA.PATH_TO_DATA_DIR", str(data), "TRAIN.DATASET", "shards"]
    return lambda: read_some(small_config(common, here, *words))


def read_some(cfg: Any) -> None:
    """Read a list and the first batch of its videos as a run does."""
    records = read_records(cfg, "train")
    read_class_names(cfg, "train")
    for batch in build_loader(cfg, "train", records).batches(0):
        for failure in batch.failures:
            assert "\n" not in failure.reason, failure.reason
        return


KINDS: dict[str, Callable[[np.random.Generator, Path, Path], Case]] = {
    "configs": configs,
    "weights": weights,
    "resumes": resumes,
    "exports": exports,
    "lists": lists,
    "shards": shards,
}


def make_common(folder: Path) -> None:
    """Make the files that all cases share: videos, a checkpoint, an exported folder and a shard."""
    data = folder / "data"
    parameters = DemoParameters(num_train_per_class=1, num_val_per_class=1, size=32, num_frames=8)
    make_demo_data(str(data), parameters, num_workers=1)
    with contextlib.redirect_stdout(sys.stderr):
        launch(small_config(folder, folder))
        (path,) = folder.glob("output/checkpoints/checkpoint_epoch_00001.pyth")
        export_model(
            Export(checkpoint=str(path), output=str(folder / "exported"), formats=("safetensors",))
        )
        make_shards(["--data-dir", str(data), "--output", str(folder / "shards")])


def run(kind: str, args: argparse.Namespace, folder: Path) -> dict[int, tuple[str, str]]:
    """Run the cases of one kind; return the outcome and note of each."""
    common = folder / "common"
    make_common(common)
    numbers = range(args.cases) if args.only is None else [args.only]
    pool = WorkerPool(attempt, num_workers=args.workers, deadline_sec=args.deadline_sec)
    found: dict[int, tuple[str, str]] = {}
    waiting = iter(numbers)
    for number in numbers[: 4 * args.workers]:
        next(waiting)
        pool.submit(number, (kind, number, args.seed, str(common), str(folder / str(number))))
    while len(found) < len(numbers):
        result = pool.next()
        assert result is not None
        number = result.task_id
        if isinstance(result, Done):
            found[number] = tuple(result.value)
        else:
            found[number] = ("hung" if result.hung else "died", result.reason)
        if not args.keep:
            shutil.rmtree(folder / str(number), ignore_errors=True)
        for more in waiting:
            pool.submit(more, (kind, more, args.seed, str(common), str(folder / str(more))))
            break
        if len(found) % 500 == 0:
            print(f"{len(found)} of {len(numbers)} cases", file=sys.stderr)
    pool.close()
    return found


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--cases", type=int, default=100, help="number of cases (100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--deadline-sec", type=float, default=60.0, help="limit per case (60)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run only this case")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files there")
    parser.add_argument("--show", type=int, default=0, help="number of refusals to print (0)")
    args = parser.parse_args()
    start_sec = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = run(args.kind, args, folder.resolve())
    counts = collections.Counter(outcome for outcome, _ in found.values())
    shown = 0
    for number, (outcome, note) in sorted(found.items()):
        shown += outcome == "refused"
        if outcome not in FINE or (outcome == "refused" and shown <= args.show):
            print(f"{args.kind} {number}: {outcome}: {note}")
    taken = time.monotonic() - start_sec
    print(f"{args.kind}, seed {args.seed}: {len(found)} cases in {taken:.0f} s")
    for outcome, meaning in OUTCOMES.items():
        print(f"{counts[outcome]:6d} {outcome}: {meaning}")
    return 0 if counts.keys() <= FINE else 1


if __name__ == "__main__":
    sys.exit(main())
