import pytest

from hiera_video.benchmark import timing


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    """Measure the rate of small matrix products: the large ones take most of these tests' time."""
    monkeypatch.setattr(timing, "_cpu_size", lambda dtype: 256)
