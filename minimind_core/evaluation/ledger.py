"""All runs in one table: how each was trained, and what it scored."""

from __future__ import annotations

import json
from numbers import Number
from typing import Any

import pandas as pd

from minimind_core.config import Workbook
from minimind_core.evaluation.experiments import in_group, load_experiment_results
from minimind_core.evaluation.suites import SUITES, suite_labels
from minimind_core.files import write_text

SETTINGS = {"data": "数据", "rows": "行数", "epochs": "遍数", "steps": "步数", "seed": "种子", "trainable_parameters": "可训练参数", "status": "状态"}
OUTCOMES = {**SUITES, "over_refusal": "过度拒答", "ended": "自然结束", "repetition": "复读"}


def outcomes(workbook: Workbook) -> dict[str, str]:
    """Names of all shares that a run is told by, on the workbook's topic."""
    return {**OUTCOMES, **suite_labels(workbook.persona.topic)}


def readable(workbook: Workbook, table: pd.DataFrame) -> pd.DataFrame:
    """A table of runs or experiments as text: shares in percent, other numbers to three digits, nothing where nothing is known."""
    shares = outcomes(workbook).values()

    def cell(value: Any, share: bool) -> str:
        if pd.isna(value):
            return ""
        if not isinstance(value, Number):
            return str(value)
        return f"{value:.1%}" if share else f"{value:.0f}" if value == int(value) else f"{value:.3g}"

    return pd.DataFrame({name: [cell(value, name in shares) for value in column] for name, column in table.items()}, index=table.index)


def ledger(workbook: Workbook) -> pd.DataFrame:
    """One row a run, trained or only scored; also written to report/results/runs.csv."""
    runs: dict[str, dict[str, Any]] = {}
    for path in sorted(workbook.runs.glob("*/run.json")):
        settings = json.loads(path.read_text(encoding="utf-8"))
        runs[path.parent.name] = describe(settings)
    for path in sorted(workbook.results.glob("run_*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        name = path.stem.removeprefix("run_")
        row = runs.setdefault(name, describe(result["run"]))
        row |= {label: result["scores"][key]["share"] for key, label in outcomes(workbook).items() if result["scores"].get(key, {}).get("n")}
    table = pd.DataFrame.from_dict(runs, orient="index").rename_axis("运行")
    write_text(workbook.results / "runs.csv", table.to_csv())
    return table


def experiment_table(workbook: Workbook, group: str | None = None, size: str = "default") -> pd.DataFrame:
    """One row an experiment (of a group, at one size) that has been performed: what it changed, and what it scored."""
    rows = {}
    for name, result in (in_group(workbook, group, size) if group else load_experiment_results(workbook)).items():
        shares = {label: result["scores"][key]["share"] for key, label in outcomes(workbook).items() if result["scores"].get(key, {}).get("n")}
        row = {"组": result["group"], "改动": result["about"], "事实": result["facts"], "分钟": round(result["run"]["train_seconds"] / 60, 1)}
        losses = {"训练损失": result["train_loss"], "验证损失": result["valid_losses"][-1][1] if result["valid_losses"] else None}
        losses["日常话损失"] = result["everyday"]["loss"] if result["everyday"] else None
        rows[name] = {**row, **losses, **shares}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("实验")


def probe_table(workbook: Workbook, step: int) -> pd.DataFrame:
    """Validation losses of the recipe's probes (report/results/search.csv) after so many steps; empty without the file."""
    path = workbook.results / "search.csv"
    if not path.is_file():
        return pd.DataFrame()
    probes = pd.read_csv(path)
    return probes[probes["step"] == step].drop(columns=["planned_steps", "train_loss"])


def describe(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell runs apart."""
    row: dict[str, Any] = {label: settings[key] for key, label in SETTINGS.items() if key in settings}
    if "lora" in settings:
        lora, train = settings["lora"], settings["train"]
        row |= {"秩": lora["rank"], "线性层": len(lora["target_modules"]), "首层": lora.get("first_layer", 0), "学习率": train["learning_rate"]}
    if "train_seconds" in settings:
        row["分钟"] = round(settings["train_seconds"] / 60, 1)
    return row
