"""The system's Chromium, driven by Playwright, with the workbook's Chinese font.

For the video and the browser tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pylopdf_fonts_zh_cn

from minimind_core.errors import WorkbookError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 120.0  # seconds for a page to come up
BROWSER_HELP = (
    "没有浏览器：Debian、Ubuntu 请运行 sudo apt install chromium"
    "（其他系统装 Chrome 或 Chromium 并加到 PATH），再 pip install playwright。"
)


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


def listening(port: int) -> bool:
    """Whether something on this machine listens at the port.

    A request would start a kernel of its own in Voilà.
    """
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def stop(process: subprocess.Popen) -> None:
    """End a server and, where the system has process groups, all that it has started."""
    group = hasattr(os, "killpg")
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM) if group else process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        process.wait()


@contextmanager
def local_server(
    command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server on a free port, {port} in its command, that prints to `log`.

    Yields its address and process once it listens.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.replace("{port}", str(port)) for part in command]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                end = log.read_text(encoding="utf-8", errors="replace")[-1000:]
                raise WorkbookError(
                    f"本机的网页服务没有起来。它最后说的是：\n{end}\n请按它的话处理，全文在 {log}。"
                )
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        stop(process)


@contextmanager
def launch() -> Iterator[Any]:
    """A running browser; WorkbookError says how to get one."""
    path = browser_path()
    if path is None:
        raise WorkbookError(BROWSER_HELP)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=list(FLAGS), env={**os.environ, **font_environment()}
        )
        try:
            yield browser
        finally:
            browser.close()
