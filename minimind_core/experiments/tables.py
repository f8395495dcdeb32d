"""Experiments side by side: what each changed, and what it scored."""

from __future__ import annotations

from typing import Any

import pandas as pd

from minimind_core.config import Workbook
from minimind_core.evaluation.ledger import OUTCOMES
from minimind_core.experiments.results import in_group, load_experiment_results


def experiment_table(workbook: Workbook, group: str | None = None, size: str = "default") -> pd.DataFrame:
    """One row an experiment (of a group, at one size) that has been performed.

    What it changed, and what it scored.
    """
    results = in_group(workbook, group, size) if group else load_experiment_results(workbook)
    rows: dict[str, dict[str, Any]] = {}
    for name, result in results.items():
        row = {"组": result["group"], "改动": result["about"], "事实": result["facts"]}
        row["分钟"] = round(result["run"]["train_seconds"] / 60, 1)
        valid = result["valid_losses"]
        row |= {"训练损失": result["train_loss"], "验证损失": valid[-1][1] if valid else None}
        row["日常话损失"] = result["everyday_loss"]
        scores = result["scores"]
        rows[name] = row | {
            label: scores[key]["share"] for key, label in OUTCOMES.items() if scores.get(key, {}).get("n")
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("实验")
