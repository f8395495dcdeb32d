"""Every notebook runs headless, in order, without any network, and follows the frame."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import PROJECT

from minimind_core.reporting.notebooks import drop_bars, execute, hidden_errors, note_duration

# hidden ones belong to a run that is under way
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("[!.]*.ipynb"))
RUNNER = [sys.executable, str(PROJECT / "scripts" / "run_notebooks.py")]
# Put on every kernel's path: any connection that leaves the machine is refused and written down.
GUARD = """
import os, socket
_connect, _lookup = socket.socket.connect, socket.getaddrinfo
def _note(address):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(f"{address}\\n")
    raise OSError(f"network is blocked: {address}")
def connect(self, address):
    if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        _note(address)
    return _connect(self, address)
def getaddrinfo(host, *args, **kwargs):
    if host not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        _note(host)
    return _lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
open(os.environ["NETWORK_LOG"] + ".armed", "a").close()
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_frame(path):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for word in ("本节目标", "你将学到", "前置与用时", "程序用时", "## 小结", "## 动手练习", "## 延伸阅读"):
        assert word in prose, word
    parameters = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(parameters) == 1
    assert all(isinstance(node, ast.Assign) for node in ast.parse(parameters[0].source).body)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 15
            assert not [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert path.stat().st_size <= 400_000


def test_chapters_are_numbered_without_a_gap_and_lead_to_each_other():
    assert [p.name[:2] for p in NOTEBOOKS] == [f"{i:02}" for i in range(1, len(NOTEBOOKS) + 1)]
    for path, following in zip(NOTEBOOKS, NOTEBOOKS[1:], strict=False):
        assert f"]({following.name})" in path.read_text(encoding="utf-8"), path.name


def test_an_unknown_parameter_is_refused(tmp_path):
    result = subprocess.run(
        [*RUNNER, "--scratch", tmp_path / "s", "-p", "RUNN=x"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2 and "RUNN" in result.stderr and "RUN" in result.stderr


def test_an_error_hidden_in_a_widget_is_found():
    outputs = [{"output_type": "error", "ename": "ValueError", "evalue": "hidden", "traceback": []}]
    states = {"state": {"a": {"state": {"outputs": outputs}}, "b": {"state": {}}}}
    notebook = nbformat.v4.new_notebook(
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": states}}
    )
    assert hidden_errors(notebook) == ["ValueError: hidden"]


def test_empty_bars_go_and_the_measured_time_is_written():
    output = nbformat.v4.new_output
    printed = ["先打印\n\r测试 main:  0%", "\r测试 main:  50%", "\r              \r", "后打印\n"]
    cells = [
        nbformat.v4.new_markdown_cell("# 题目\n\n**程序用时**：约 3 秒。\n"),
        nbformat.v4.new_code_cell(
            "1", outputs=[output("stream", name="stdout", text=text) for text in printed]
        ),
        nbformat.v4.new_code_cell(
            "2", outputs=[output("stream", name="stdout", text="\r测试 main: 9%\r      \r")]
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    drop_bars(notebook)
    note_duration(notebook, 150)
    assert [o.text for o in notebook.cells[1].outputs] == ["先打印\n后打印\n"]
    assert not notebook.cells[2].outputs
    assert "约 2 分钟" in notebook.cells[0].source and notebook.cells[0].source.startswith("# 题目")


@pytest.mark.slow
def test_all_notebooks_run_in_the_smoke_profile_without_network(tmp_path):
    guard: Path = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    log = tmp_path / "network.log"
    environment = {**os.environ, "PYTHONPATH": str(guard), "NETWORK_LOG": str(log)}
    scratch = tmp_path / "scratch"
    result = subprocess.run(
        [*RUNNER, "--profile", "smoke", "--scratch", scratch],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert Path(f"{log}.armed").exists()
    assert not log.exists(), log.read_text()
    for path in NOTEBOOKS:
        notebook = nbformat.read(scratch / "notebooks" / path.name, as_version=4)
        counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))  # the cell that papermill adds leaves no gap
        assert "papermill" not in notebook.metadata and not any(
            "execution" in c.metadata for c in notebook.cells
        )
    assert (scratch / "report" / "大作业报告.pdf").read_bytes().startswith(b"%PDF")
    assert len(list(scratch.glob("*_大作业.zip"))) == 1
    loss = nbformat.read(scratch / "notebooks" / "04_train_lora.ipynb", as_version=4)
    assert any(
        "image/png" in o.get("data", {}) for c in loss.cells if c.cell_type == "code" for o in c.outputs
    )
    assert (scratch / "figures" / "loss.png").exists()


def test_a_foreign_kernel_does_not_stop_a_notebook_and_its_widgets_keep_their_state(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("N = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import ipywidgets\nipywidgets.HTML(f'第 {N} 个')"),
    ]
    kernel = {"name": "py39_new", "display_name": "py39_new", "language": "python"}
    source, target = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
    execute(source, target, {"N": 2}, tmp_path)
    saved = nbformat.read(target, as_version=4)
    states = saved.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    (output,) = saved.cells[-1].outputs
    shown = output.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert states[shown]["state"]["value"] == "第 2 个"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_saved_notebook_has_the_state_of_every_widget_that_it_shows(path):
    notebook = nbformat.read(path, as_version=4)
    kept = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    views = [
        output.data["application/vnd.jupyter.widget-view+json"]["model_id"]
        for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]  # fmt: skip
    assert set(views) <= set(kept.get("state", {}))
