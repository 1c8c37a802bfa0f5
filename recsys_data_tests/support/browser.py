"""Chromium for tests: the one that the system has, looked for on the path."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@contextmanager
def chromium() -> "Iterator[Browser]":
    """A browser; without one, or without playwright, the test is skipped, but fails in CI."""
    executable = shutil.which("chromium")
    if not executable or not importlib.util.find_spec("playwright"):
        if os.environ.get("CI"):
            pytest.fail("chromium or playwright is not there, but CI must run them.")
        pytest.skip("chromium or playwright is not there.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS, chromium_sandbox=False)
        yield browser
        browser.close()
