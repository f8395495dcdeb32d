"""Run notebooks through papermill.

Unknown parameters, hidden widget errors and volatile metadata do not get past.
"""

from __future__ import annotations

import ast
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill

from minimind_core.devices import choose_device
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing


def write_notebook(path: Path, cells: Sequence[nbformat.NotebookNode]) -> Path:
    """A new notebook for the Python kernel, not yet run."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=kernel), path)
    return path


def hidden_errors(notebook: nbformat.NotebookNode) -> list[str]:
    """Tracebacks that sit only in the saved state of widgets, where papermill does not look."""
    states = (
        notebook.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    return [
        f"{output['ename']}: {output['evalue']}"
        for model in states.values()
        for output in model.get("state", {}).get("outputs", []) or []
        if output.get("output_type") == "error"
    ]


def strip(notebook: nbformat.NotebookNode) -> None:
    """Remove what changes from run to run without meaning anything."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "tags" in cell.metadata and not cell.metadata.tags:
            del cell.metadata["tags"]


def drop_bars(notebook: nbformat.NotebookNode) -> None:
    """Join what a cell printed, and keep of each line what stands behind its last carriage return."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        joined: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            printed = output.output_type == "stream"
            if printed and joined and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        for output in joined:
            if output.output_type == "stream" and "\r" in output.text:
                lines = [line.rsplit("\r", 1)[-1].rstrip(" ") for line in output.text.split("\n")]
                output.text = "\n".join(lines)
        cell.outputs = [o for o in joined if o.output_type != "stream" or o.text.strip()]


def renumber(notebook: nbformat.NotebookNode) -> None:
    """Count the code cells from 1 on: what a cell that was taken out leaves is no gap to wonder about."""
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number


def known_parameters(path: Path) -> set[str]:
    """Names assigned in the notebook's parameters cell."""
    notebook = nbformat.read(path, as_version=4)
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise WorkbookError(f"{path}: 应恰好有一个标记为 parameters 的单元格，实际有 {len(tagged)} 个。")
    return {
        target.id
        for node in ast.parse(tagged[0].source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }


def note_duration(notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Write the measured time into the line of the first cell that tells it."""
    told = f"{seconds:.0f} 秒" if seconds < 100 else f"{seconds / 60:.0f} 分钟"
    first = notebook.cells[0]
    device = choose_device().type
    where = f"{os.cpu_count()} 核 CPU" if device == "cpu" else device.upper()
    line = f"**程序用时**：约 {told}（{where}）。"
    first.source = re.sub(r"\*\*程序用时\*\*：[^\n]*", line, first.source)


def execute(source: Path, target: Path, parameters: dict[str, Any], root: Path) -> None:
    """Run one notebook; the executed copy replaces `target` only when everything went well."""
    with replacing(target) as temporary:
        started = time.monotonic()
        papermill.execute_notebook(
            str(source), str(temporary), parameters=parameters, kernel_name="python3", progress_bar=False,
            cwd=str(root),
            start_timeout=120, execution_timeout=7200, extra_arguments=["--IPKernelApp.log_level=40"],
        )  # fmt: skip
        notebook = nbformat.read(temporary, as_version=4)
        errors = hidden_errors(notebook)
        if errors:
            raise WorkbookError(f"{source}: 组件里藏着错误：{errors[0]}")
        strip(notebook)
        notebook.cells = [
            c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])
        ]
        drop_bars(notebook)
        note_duration(notebook, time.monotonic() - started)
        renumber(notebook)
        nbformat.write(notebook, temporary)
