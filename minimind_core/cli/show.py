"""The verb that serves the class show."""

from __future__ import annotations

import argparse
import subprocess

from minimind_core.config import Workbook
from minimind_core.training.run_files import adapter_file, trained_runs
from minimind_core.ui.page import page_command, page_notebook


def show(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Serve the panel until Ctrl-C."""
    if arguments.run != "base":
        adapter_file(workbook, arguments.run)  # a missing run is named here, not in the page
    runs = list(dict.fromkeys([arguments.run, *trained_runs(workbook), "base"]))
    command, environment = page_command(
        page_notebook(workbook, runs), arguments.port, not arguments.no_browser
    )
    print(f"课堂展示：http://127.0.0.1:{arguments.port}（Ctrl-C 结束）", flush=True)
    return subprocess.run(command, env=environment, cwd=workbook.root, check=False).returncode
