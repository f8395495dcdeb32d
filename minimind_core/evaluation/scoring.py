"""Evaluate a run and keep the result as a file that README, notebooks and report quote."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minimind_core.config import PROFILES, Workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.suites import load_suites, run_suites, summarize
from minimind_core.files import write_json
from minimind_core.training.runs import load_run, run_folder


def results_file(workbook: Workbook, name: str) -> Path:
    """Where the scores of a run are kept."""
    return workbook.results / f"run_{name}.json"


def evaluate_run(workbook: Workbook, name: str, profile: str | None = None) -> dict[str, Any]:
    """Ask every suite, write report/results/run_NAME.json and return its content."""
    limit = PROFILES[profile or workbook.profile].test_questions
    model, tokenizer = load_run(workbook, name)
    suites = load_suites(workbook, limit)
    total = sum(map(len, suites.values()))
    started = time.monotonic()
    with tqdm(total=total, desc=f"测试 {name}", unit="题", disable=None) as bar:
        graded = run_suites(model, tokenizer, workbook, suites, report=bar.update)
    settings_file = run_folder(workbook, name) / "run.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {"name": name}
    result = {
        "run": settings, "seed": workbook.seed, "seconds": time.monotonic() - started,
        **summarize(graded), "answers": [item.as_dict() for item in graded],
    }  # fmt: skip
    write_json(results_file(workbook, name), result)
    return result


def load_results(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All evaluated runs, the base first."""
    files = sorted(workbook.results.glob("run_*.json"), key=lambda p: (p.stem != "run_base", p.stem))
    if not files:
        raise WorkbookError(f"{workbook.results}: 还没有测试结果。请先运行 minimind evaluate 或笔记本 05、06。")
    return {path.stem.removeprefix("run_"): json.loads(path.read_text(encoding="utf-8")) for path in files}
