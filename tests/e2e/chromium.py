"""A real Chromium, in which tests do what a person does."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright._impl._api_structures import Clip
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000
"""Milliseconds until something on a page must have shown: the machine may be busy."""
COLOURS = 256


@contextmanager
def running_chromium() -> Iterator["Browser"]:
    """The machine's own, or the one that TEST_CHROMIUM names. Skips where there is none."""
    program = os.environ.get("TEST_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium: install Debian's package chromium, or set TEST_CHROMIUM to its program")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses root.
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", *, width: int = 1280, height: int = 2000) -> Iterator["Page"]:
    """An empty page of somebody who has used MLflow before: its assistant opens by itself only once."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE)
    context.add_init_script('localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true")')
    yield context.new_page()
    context.close()


def save_picture(page: "Page", path: Path, *, top: str, bottom: str) -> None:
    """What the page shows between two elements, as a PNG of few colours."""
    from PIL import Image

    first, last = page.locator(top).bounding_box(), page.locator(bottom).bounding_box()
    assert first is not None
    assert last is not None
    margin = 14
    left, upper = last["x"] - margin, first["y"] - margin
    clip: Clip = {
        "x": left,
        "y": upper,
        "width": last["width"] + 2 * margin,
        "height": last["y"] + last["height"] + margin - upper,
    }
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as picture:
        # By coverage: the others make a soup's few red points as brown as their surroundings.
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
