"""The configs that hiera_video ships, found from any folder, with or without a clone."""

from pathlib import Path

from hiera_video.utils.io import is_dir, is_file

_PACKAGE = Path(__file__).parents[1]
# A wheel holds them in the package; a clone, also one installed with `pip install -e`, beside it.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def find_config(path: str) -> str:
    """Return `path` if it exists, else the shipped config of that name if there is one.

    "Kinetics/HIERA_B.yaml" and "configs/Kinetics/HIERA_B.yaml" name the same config. A path that
    is neither is returned as it is.
    """
    if not path or "://" in path or is_file(path) or is_dir(path):
        return path
    name = path.removeprefix("configs/")
    return str(_folder() / name) if name in shipped_configs() else path


def shipped_configs() -> list[str]:
    """Return the names of all shipped configs, such as "Kinetics/HIERA_B.yaml"."""
    folder = _folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))


def _folder() -> Path:
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
