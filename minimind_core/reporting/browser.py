"""The system's Chromium, driven by Playwright, with the workbook's Chinese font: for the video and the browser tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pylopdf_fonts_zh_cn

from minimind_core.errors import WorkbookError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
BROWSER_HELP = "没有浏览器：Debian、Ubuntu 请运行 sudo apt install chromium（其他系统装 Chrome 或 Chromium 并加到 PATH），再 pip install playwright。"


def browser_path() -> str | None:
    """Where the system's Chromium or Chrome is; None without one or without Playwright."""
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        return None
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def font_environment() -> dict[str, str]:
    """Lets Chromium find the packaged Chinese font where the system has none (fontconfig, Linux)."""
    path = Path(tempfile.gettempdir()) / "minimind_fonts.conf"
    folder = Path(pylopdf_fonts_zh_cn.sans_path()).parent
    path.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f'<include ignore_missing="yes">/etc/fonts/fonts.conf</include><dir>{folder}</dir></fontconfig>',
        encoding="utf-8",
    )
    return {"FONTCONFIG_FILE": str(path)}


@contextmanager
def launch() -> Iterator[Any]:
    """A running browser; WorkbookError says how to get one."""
    path = browser_path()
    if path is None:
        raise WorkbookError(BROWSER_HELP)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), env={**os.environ, **font_environment()})
        try:
            yield browser
        finally:
            browser.close()
