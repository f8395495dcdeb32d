"""The verb that serves the class show."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import subprocess

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.reporting.browser import stop
from minimind_core.training.run_files import adapter_file, trained_runs
from minimind_core.ui.page import page_command, page_notebook

PORTS_TRIED = 50  # from the wanted one on


def show(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Serve the panel until Ctrl-C, at the wanted port or the next free one."""
    adapter_file(workbook, arguments.run)  # a missing run is named here, not in the page
    runs = list(dict.fromkeys([arguments.run, *trained_runs(workbook), "base"]))
    port = free_port(arguments.port)
    command, environment = page_command(page_notebook(workbook, runs), port, not arguments.no_browser)
    print(f"课堂展示：http://127.0.0.1:{port}（Ctrl-C 结束）", flush=True)
    return serve(command, environment, workbook)


def free_port(wanted: int) -> int:
    """The wanted port of this machine, or the next one that nobody uses."""
    for port in range(wanted, wanted + PORTS_TRIED):
        with socket.socket() as probe, contextlib.suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", port))
            return port
    raise WorkbookError(f"端口 {wanted} 和后面 {PORTS_TRIED} 个都用不了。请用 --port 换一个。")


def serve(command: list[str], environment: dict[str, str], workbook: Workbook) -> int:
    """Run the server to its end, or until this process is told to stop; its children end with it."""
    server = subprocess.Popen(command, env=environment, cwd=workbook.root, start_new_session=True)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        print("\n已结束。")
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
        stop(server)
