"""Check the machine and the installation; each trouble comes with advice.

Checks are independent. A check that raises an unexpected error is reported as a trouble, never as a
traceback.
"""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

from hiera_video.utils.errors import reason_of
from hiera_video.utils.machine import free_memory, usable_cores
from hiera_video.version import __version__

OK, NOTE, TROUBLE = "ok", "note", "TROUBLE"
GIB = 1 << 30
_REQUIRED = (
    *("torch", "torchvision", "pytorchvideo", "av", "numpy", "fvcore", "iopath", "fsspec"),
    *("webdataset", "safetensors", "simplejson", "tqdm", "tensorboard", "matplotlib", "pyyaml"),
    *("jinja2", "pillow", "typing_extensions"),
)
_OPTIONAL = (
    *("decord", "torchcodec", "onnx", "onnxscript", "onnxruntime", "huggingface_hub"),
    *("starlette", "uvicorn", "python-multipart"),
)
_MIN_MEMORY_BYTES = 2 * GIB
_MIN_DISK_BYTES = 2 * GIB
# NCCL uses it when GPUs cannot reach each other directly; a container's default is 64 MB.
_MIN_SHM_BYTES_OF_GPUS = 1 * GIB
_MIN_OPEN_FILES = 1024
_PROBE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: `status` is OK, NOTE or TROUBLE; `advice` says what to do."""

    name: str
    status: str
    said: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.status:8}{self.name}: {self.said}"
        return f"{line}\n{'':8}-> {self.advice}" if self.advice else line


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of a check; an error that it raises becomes a trouble."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a broken package may do anything when it is imported
        advice = "If nothing else here explains it, this is a bug of hiera_video: report it."
        found.append(Finding(name, TROUBLE, f"cannot be checked ({reason_of(error)})", advice))
    return found


def check_versions() -> Iterator[Finding]:
    """Report the versions of Python and of installed packages, read from their metadata."""
    where = f"python {platform.python_version()}, {platform.platform()}"
    yield Finding("python", OK, f"{where}; hiera_video {__version__}")
    versions = {name: version_of(name) for name in (*_REQUIRED, *_OPTIONAL)}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding("packages", OK, found or "none")
    if missing := [name for name in _REQUIRED if not versions[name]]:
        advice = "pip install -c constraints.txt -e . in the folder of the clone."
        yield Finding("packages", TROUBLE, f"not installed: {', '.join(missing)}", advice)


def version_of(package: str) -> str:
    """Return the version of a package, "" if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def check_devices() -> Iterator[Finding]:
    """Report the cores this process may use, and try a matrix product on each CUDA device."""
    torch = importlib.import_module("torch")
    yield Finding(
        "CPU", OK, f"{usable_cores()} cores for this process, torch uses {torch.get_num_threads()}"
    )
    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} is built for " + (torch.version.cuda or "the CPU alone")
        if os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi"):
            advice = (
                "Install a torch built for a CUDA version that the driver supports (nvidia-smi "
                "names it); until then, set NUM_GPUS 0."
            )
            yield Finding("GPU", TROUBLE, f"there is one, but torch finds none; {built}", advice)
        else:
            yield Finding("GPU", NOTE, f"none: runs need NUM_GPUS 0; {built}")
        return
    for index in range(torch.cuda.device_count()):
        yield from guarded(f"GPU {index}", partial(_check_gpu, torch, index))


def num_gpus() -> int:
    """Return the number of CUDA devices, 0 if torch fails."""
    try:
        torch = importlib.import_module("torch")
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    except Exception:
        return 0


def _check_gpu(torch: Any, index: int) -> Iterator[Finding]:
    name = torch.cuda.get_device_name(index)
    advice = "Stop other processes on it (nvidia-smi lists them)."
    try:
        free, total = torch.cuda.mem_get_info(index)
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        right = float((ones @ ones).sum()) == 64.0**3
    except RuntimeError as error:
        yield Finding(f"GPU {index}", TROUBLE, f"{name} fails ({reason_of(error)})", advice)
        return
    said = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if right:
        yield Finding(f"GPU {index}", OK, said)
    else:
        yield Finding(f"GPU {index}", TROUBLE, f"{said}; a product is wrong", "Replace it.")


def check_memory(limits: Iterable[str] = ("/sys/fs/cgroup/memory.max",)) -> Iterator[Finding]:
    """Report the memory left to the machine and the container; `limits` are cgroup files."""
    free = free_memory(limits)
    if free is None:
        yield Finding("memory", NOTE, "this system does not report how much is free")
    elif free < _MIN_MEMORY_BYTES:
        advice = (
            "Give the container more (docker run --memory), or lower TRAIN.BATCH_SIZE and "
            "DATA_LOADER.NUM_WORKERS."
        )
        yield Finding("memory", TROUBLE, f"{free / GIB:.1f} GiB free", advice)
    else:
        yield Finding("memory", OK, f"{free / GIB:.1f} GiB free")


def check_shared_memory(*, num_gpus: int, path: str = "/dev/shm") -> Iterator[Finding]:
    """Report the free space in /dev/shm, which NCCL may need; loader processes do not use it."""
    if not os.path.isdir(path):
        yield Finding("shared memory", NOTE, f"no {path}; loader processes do not need it")
        return
    size = shutil.disk_usage(path)
    said = f"{size.free / GIB:.2f} of {size.total / GIB:.2f} GiB free in {path}"
    if size.free >= _MIN_SHM_BYTES_OF_GPUS:
        yield Finding("shared memory", OK, said)
    elif num_gpus > 1:
        advice = (
            "NCCL may use it between GPUs: docker run --shm-size=8g or --ipc=host, or remove files "
            f"from {path}; as a last resort, NCCL_SHM_DISABLE=1."
        )
        yield Finding("shared memory", TROUBLE, said, advice)
    else:
        said += "; little, but only runs on several GPUs need it: loader processes do not"
        yield Finding("shared memory", NOTE, said)


def check_disk(folders: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Write to each folder of the (purpose, folder) pairs and report its free space."""
    for purpose, folder in folders:
        yield from guarded("disk", partial(_check_folder, purpose, folder))


def _check_folder(purpose: str, folder: str) -> Iterator[Finding]:
    place = os.path.abspath(folder)
    while not os.path.exists(place):  # the run will create the folder
        place = os.path.dirname(place)
    where = f"{purpose} {folder}"
    try:
        free = shutil.disk_usage(place).free
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        advice = "Free some space, raise the quota (ulimit -f, quota -s), or name another folder."
        said = f"{where} cannot be written to ({error.strerror or error})"
        yield Finding("disk", TROUBLE, said, advice)
        return
    said = f"{where}: {free / GIB:.1f} GiB free"
    if free < _MIN_DISK_BYTES:
        advice = (
            "Free some space or name another folder: a checkpoint of Hiera-B with its optimizer is "
            "0.6 GB, and TRAIN.KEEP_CHECKPOINTS sets how many are kept."
        )
        yield Finding("disk", TROUBLE, said, advice)
    else:
        yield Finding("disk", OK, said)


def check_open_files() -> Iterator[Finding]:
    """Report how many files a process may have open."""
    try:
        import resource
    except ImportError:  # not Unix
        yield Finding("open files", NOTE, "this system reports no limit")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = "any number" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < _MIN_OPEN_FILES:
        most = "more" if hard == resource.RLIM_INFINITY else str(hard)
        advice = f"ulimit -n 4096 in the shell of the run (up to {most} without being root)."
        yield Finding("open files", TROUBLE, f"{allowed} at a time", advice)
    else:
        yield Finding("open files", OK, f"{allowed} at a time")


@contextmanager
def stderr_in(path: str) -> Iterator[None]:
    """Redirect stderr of this process and its new children to a file, native code included."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(path, "wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
