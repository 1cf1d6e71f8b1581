"""A headless Chromium of the system, driven by Playwright, whose own browsers are never downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def why_not() -> str | None:
    """Return what is missing for a browser, with the cure; None if nothing is."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "no Playwright: pip install '.[test]'"
    if not any(map(shutil.which, PROGRAMS)):
        return f"no {', '.join(PROGRAMS)} on the PATH; on Debian: apt install chromium"
    return None


@contextmanager
def chromium() -> Iterator:
    """Start the browser with a new empty profile, and stop it; yields Playwright's ``Browser``."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, PROGRAMS)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=QUIET, chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()
