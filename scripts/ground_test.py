"""What a base is worth as ground for LoRA: the default recipe on several bases, beside random weights.

    python scripts/ground_test.py new=weights/base previous=FOLDER random [--epochs 1] [--rows N] [--questions 400]

Writes report/results/ground.json: held-out accuracy with its Wilson interval and the last validation loss of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path

import torch

from minimind_core.config import PROFILES, Workbook, load_workbook
from minimind_core.evaluation.suites import load_suites, run_suites, summarize
from minimind_core.files import write_json
from minimind_core.modeling.checkpoint import load_base, save_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.training.runs import load_run, prepare_run, read_metrics

SUITES = ("identity", "music_held_out", "refusal")


def random_base(like: Path, folder: Path) -> Path:
    """A base of the same shape whose weights were never trained; residual outputs are random too."""
    model, tokenizer = load_base(like)
    torch.manual_seed(42)
    fresh = MiniMind(model.config)
    for parameter in fresh.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.02)
    save_base(fresh, tokenizer, folder)
    return folder


def tried(workbook: Workbook, name: str, epochs: int, rows: int | None, questions: int) -> dict:
    """Train on the workbook's base, ask, and sum up."""
    run = prepare_run(workbook, f"ground_{name}", replace(PROFILES["default"], epochs=epochs, train_rows=rows))
    deque(run.train(), maxlen=0)
    metrics = read_metrics(run.folder / "metrics.csv")
    suites = {suite: rows for suite, rows in load_suites(workbook, questions).items() if suite in SUITES}
    graded = run_suites(*load_run(workbook, run.name), workbook, suites)
    scores = summarize(graded)["scores"]
    losses = [float(row["valid_loss"]) for row in metrics if row["valid_loss"]]
    return {
        "valid_loss": losses[-1],
        "train_loss": float(metrics[-1]["mean_loss"]),
        "seconds": float(metrics[-1]["seconds"]),
        **{s: scores[s] for s in SUITES},
    }


def main() -> None:
    """Try every base named on the command line."""
    parser = argparse.ArgumentParser(description="LoRA on several bases")
    parser.add_argument("bases", nargs="+", help="NAME=FOLDER, or random")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, help="train on the first so many rows only")
    parser.add_argument("--questions", type=int, default=400)
    arguments = parser.parse_args()
    workbook = load_workbook()
    target = workbook.results / "ground.json"
    found: dict = {"epochs": arguments.epochs, "rows": arguments.rows, "seed": workbook.seed, "bases": {}}
    with tempfile.TemporaryDirectory() as folder:
        for item in arguments.bases:
            name, _, path = item.partition("=")
            if not path and name != "random":
                parser.error(f"{item}: write NAME=FOLDER, or random")
            base = Path(path).resolve() if path else random_base(workbook.base, Path(folder) / "random")
            found["bases"][name] = tried(replace(workbook, base=base), name, arguments.epochs, arguments.rows, arguments.questions)
            write_json(target, found)
            print(name, found["bases"][name], flush=True)


if __name__ == "__main__":
    main()
