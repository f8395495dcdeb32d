"""All runs in one table: how each was trained, and what it scored."""

from __future__ import annotations

from numbers import Number
from typing import Any

import pandas as pd

from minimind_core.config import Workbook
from minimind_core.evaluation.scoring import is_stale, results_here
from minimind_core.evaluation.suites import suite_labels
from minimind_core.files import write_text
from minimind_core.training.run_files import read_run

SETTINGS = {
    "data": "数据",
    "rows": "行数",
    "epochs": "遍数",
    "steps": "步数",
    "seed": "种子",
    "trainable_parameters": "可训练参数",
    "status": "状态",
}
OUTCOMES = {**suite_labels(), "over_refusal": "过度拒答", "ended": "自然结束", "repetition": "复读"}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of runs or experiments as text.

    Shares in percent, other numbers to three digits, nothing where nothing is known.
    """
    shares = OUTCOMES.values()

    def cell(value: Any, share: bool) -> str:
        if pd.isna(value):
            return ""
        if not isinstance(value, Number):
            return str(value)
        return f"{value:.1%}" if share else f"{value:.0f}" if value == int(value) else f"{value:.3g}"

    return pd.DataFrame(
        {name: [cell(value, name in shares) for value in column] for name, column in table.items()},
        index=table.index,
    )


def ledger(workbook: Workbook) -> pd.DataFrame:
    """One row a run, trained or only scored; also written to report/results/runs.csv.

    Scores are those on these facts and this base, of the adapter as it is now.
    """
    runs: dict[str, dict[str, Any]] = {}
    for path in sorted(workbook.runs.glob("*/run.json")):
        runs[path.parent.name] = describe(read_run(path.parent))
    for name, result in sorted(results_here(workbook).items()):
        if is_stale(workbook, result):
            continue
        row = runs.setdefault(name, describe(result["run"]))
        row |= {
            label: result["scores"][key]["share"]
            for key, label in OUTCOMES.items()
            if result["scores"].get(key, {}).get("n")
        }
    table = pd.DataFrame.from_dict(runs, orient="index").rename_axis("运行")
    write_text(workbook.results / "runs.csv", table.to_csv())
    return table


def describe(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell runs apart."""
    row: dict[str, Any] = {label: settings[key] for key, label in SETTINGS.items() if key in settings}
    if "lora" in settings:
        lora, train = settings["lora"], settings["train"]
        row |= {
            "秩": lora["rank"],
            "线性层": len(lora["target_modules"]),
            "首层": lora.get("first_layer", 0),
            "学习率": train["learning_rate"],
        }
    if "train_seconds" in settings:
        row["分钟"] = round(settings["train_seconds"] / 60, 1)
    return row
