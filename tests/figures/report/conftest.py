"""A headless browser, one for all tests of pages; they are left out where there is none."""

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "xhat_tests_browser", Path(__file__).with_name("browser.py")
)
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)


@pytest.fixture(scope="session")
def opened():
    if browser.find() is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(browser.NAMES)})")
    with browser.Browser() as page:
        yield page


@pytest.fixture
def page(opened):
    opened.problems.clear()
    return opened
