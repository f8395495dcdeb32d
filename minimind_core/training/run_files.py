"""What a run folder holds: adapter.safetensors, metrics.csv and run.json, and where they are."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import minimind_core
from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.files import read_json, write_text
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.exporting import Source
from minimind_core.modeling.lora import adapter_config, load_adapter
from minimind_core.training.trainer import StepRecord

COLUMNS = tuple(field.name for field in dataclasses.fields(StepRecord))


def run_folder(workbook: Workbook, name: str) -> Path:
    """Folder of a run; names are letters, digits, Chinese, '-', '_' and '.'."""
    if not re.fullmatch(r"[\w\-][\w\-.]*", name):
        raise WorkbookError(f"运行名“{name}”不合适：只能用文字、数字、-、_ 和 .，不能含空格或斜线。")
    return workbook.runs / name


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    state = path.stat()
    return digest(path, state.st_mtime_ns, state.st_size)


@cache
def digest(path: Path, changed: int, size: int) -> str:
    """SHA-256 of a file that was last changed then and has so many bytes; computed once."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def base_sha256(base: Path) -> str:
    """Digest of a base's weights, whether a transformers folder or a .pth file."""
    if base.suffix == ".pth":
        return file_sha256(base)
    return file_sha256(
        next(
            (path for name in ("model.safetensors", "pytorch_model.bin") if (path := base / name).is_file()),
            base / "model.safetensors",
        )
    )


def environment() -> dict[str, Any]:
    """Code version and hardware, so that a figure can be traced."""
    commit = ""
    if shutil.which("git"):
        command = ["git", "rev-parse", "HEAD"]
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        commit = result.stdout.strip()
    return {
        "git_commit": commit,
        "minimind_core": minimind_core.__version__,
        "python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def log_step(path: Path, record: StepRecord, previous: list[dict[str, str]] | None) -> None:
    """Append a step to metrics.csv.

    `previous` (given with the first step) are an interrupted run's rows to keep.
    """

    def line(row: Mapping[str, Any]) -> str:
        """A row as text; None is an empty cell."""
        return ",".join("" if row[c] is None else str(row[c]) for c in COLUMNS) + "\n"

    if previous is not None:
        kept = [line(row) for row in previous if int(row["step"]) < record.step]
        write_text(path, ",".join(COLUMNS) + "\n" + "".join(kept))
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line(dataclasses.asdict(record)))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, none if the file is not there; a line that a power cut broke off is left out."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if None not in row.values()]


def trained_runs(workbook: Workbook) -> list[str]:
    """Names of all runs that have an adapter."""
    return sorted(path.parent.name for path in workbook.runs.glob("*/adapter.safetensors"))


def read_run(folder: Path) -> dict[str, Any]:
    """What run.json tells of a run."""
    return read_json(folder / "run.json", "运行文件夹不完整，请重新训练。")


def adapter_file(workbook: Workbook, name: str) -> Path | None:
    """The adapter of a run that was trained on the workbook's base; None for `base`, the base alone."""
    if name == "base":
        return None
    folder = run_folder(workbook, name)
    if not (folder / "adapter.safetensors").is_file():
        known = "、".join(["base", *trained_runs(workbook)])
        raise WorkbookError(
            f"没有名为“{name}”的训练结果。现有：{known}。请先运行 minimind train --run {name}。"
        )
    settings = read_run(folder)
    if settings["base_sha256"] != base_sha256(workbook.base):
        raise WorkbookError(
            f"{folder}: 这个适配器是在另一个基座上训练的。请把 workbook.toml "
            f"的 base 改回 {settings['base']}，或重新训练。"
        )
    return folder / "adapter.safetensors"


def load_source(workbook: Workbook, name: str) -> Source:
    """What an export needs of a run, its adapter still apart; the name `base` is the base model alone."""
    model, tokenizer = load_base(workbook.base)
    path = adapter_file(workbook, name)
    if path:
        load_adapter(path, model)
    return Source(model, tokenizer, adapter_config(path) if path else None, workbook.base)
