"""The class show as a page of its own, served by Voilà on this machine.

The page asks no other host for anything.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.reporting.notebooks import write_notebook

CELL = """from minimind_core.config import load_workbook
from minimind_core.ui.show import ClassShow

workbook = load_workbook()
ClassShow(workbook, {runs!r}, workbook.show_questions).view"""


def page_notebook(workbook: Workbook, runs: Sequence[str]) -> Path:
    """Write runs/show.ipynb: the title and the panel."""
    title = nbformat.v4.new_markdown_cell(
        f"# {workbook.persona.name}：{workbook.persona.topic}问答\n{workbook.persona.team} "
        f"· {workbook.course}"
    )
    cells = [title, nbformat.v4.new_code_cell(CELL.format(runs=list(runs)))]
    return write_notebook(workbook.runs / "show.ipynb", cells)


def page_command(notebook: Path, port: int | str, browser: bool) -> tuple[list[str], dict[str, str]]:
    """Voilà's command line and environment."""
    if importlib.util.find_spec("voila") is None:
        raise WorkbookError("网页版的课堂展示需要 voila 这个包。请先运行 pip install voila。")
    command = [
        sys.executable,
        "-m",
        "voila",
        str(notebook),
        f"--port={port}",
        "--Voila.ip=127.0.0.1",
        "--template=minimind",
        "--theme=light",
    ]
    environment = {
        **os.environ,
        "JUPYTER_PATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parent / "share"), os.environ.get("JUPYTER_PATH")])
        ),
    }
    return command + ([] if browser else ["--no-browser"]), environment
