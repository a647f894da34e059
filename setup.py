"""Let setuptools build the package from pyproject.toml, where its metadata stands."""

from setuptools import setup

setup()
