"""Let setuptools build the package from pyproject.toml; a wheel also holds the configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy configs/ into the built package, where hiera_video/config/shipped.py looks for them."""

    def run(self) -> None:
        """Build the package, then copy; an editable install reads configs/ in the clone."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "hiera_video", "configs")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree("configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
