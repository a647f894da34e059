"""A real browser for the tests of pages: Debian's chromium, driven by Playwright, without a screen.

Skipped where either is missing: `pip install -e '.[browser]'` and `apt-get install chromium`.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


# Of a module, not of the session: as long as Playwright runs, asyncio takes its loop for the one of
# the thread, and tests of other modules may want one of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A launched `playwright.sync_api.Browser`; it downloads nothing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (the extra 'browser')"
    )
    found = [path for name in CHROMIUM_NAMES if (path := shutil.which(name))]
    if not found:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        # Without its sandbox, which a container seldom allows; the pages are our own. A container's
        # /dev/shm may be too small for it, too.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        launched = driver.chromium.launch(executable_path=found[0], args=options)
        try:
            yield launched
        finally:
            launched.close()
