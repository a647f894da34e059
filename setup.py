"""Package metadata; tool settings stand in pyproject.toml, tested versions in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "hiera_video/version.py").read_text(), re.MULTILINE
)
assert VERSION is not None

setup(
    name="hiera_video",
    version=VERSION.group(1),
    description="Video action recognition around Hiera: train, test and extend",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # Said outright, so that an editable install is a plain path: with an import finder, the clone's
    # own folder would hide the package from scripts beside it.
    package_dir={"": "."},
    packages=find_packages(include=["hiera_video", "hiera_video.*"]),
    package_data={
        "hiera_video.data.class_names": ["*.txt"],
        "hiera_video.serve": ["page/*"],
        "hiera_video.report": ["templates/*"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "pytorchvideo",
        # It has wheels for these only; elsewhere PyAV reads everything.
        "decord; (sys_platform == 'linux' and platform_machine == 'x86_64') "
        "or sys_platform == 'win32'",
        "av",
        "fvcore",
        "iopath",
        # Older ones run code of a reference:// index (which we refuse as well).
        "fsspec>=2026.6.0",
        "webdataset",
        "safetensors",
        "simplejson",
        "tqdm",
        "tensorboard",
        "matplotlib",
        "jinja2",
        "numpy",
        "pillow",
        "pyyaml",
    ],
    extras_require={
        "test": [
            "pytest",
            "pytest-cov",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "mypy",
            "pillow",
        ],
        "peers": ["hiera-transformer"],
        # A third video decoder; it needs FFmpeg's shared libraries on the machine.
        "torchcodec": ["torchcodec"],
        # tools/export.py --format onnx
        "export": ["onnx", "onnxruntime", "onnxscript"],
        # tools/submit.py
        "slurm": ["submitit"],
        # Models of Hugging Face's hub by their name; a folder is read without it.
        "hub": ["huggingface_hub"],
        # tools/serve.py
        "serve": ["starlette", "uvicorn", "python-multipart"],
        # make docs
        "docs": ["mkdocs-material"],
        # The tests of pages, with the system's chromium.
        "browser": ["playwright"],
    },
)
