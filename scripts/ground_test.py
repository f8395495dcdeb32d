"""What a base is worth as ground for LoRA: the default recipe on several bases, beside random weights.

    python scripts/ground_test.py new=weights/base previous=FOLDER random [--every 10] [--questions 400]

Each is an experiment of the group `ground` (report/results/experiments/ground_NAME.json); prints the table
that they make.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from minimind_core.config import load_workbook
from minimind_core.experiments.runner import perform
from minimind_core.experiments.settings import Experiment
from minimind_core.experiments.tables import experiment_table
from minimind_core.modeling.checkpoint import load_base, save_base
from minimind_core.modeling.minimind import MiniMind


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


def main() -> None:
    """Try every base named on the command line."""
    parser = argparse.ArgumentParser(description="LoRA on several bases")
    parser.add_argument("bases", nargs="+", help="NAME=FOLDER, or random")
    parser.add_argument("--every", type=int, default=10, help="facts about every n-th subject only")
    parser.add_argument("--questions", type=int, default=400, help="at most so many of each suite")
    arguments = parser.parse_args()
    workbook = load_workbook()
    with tempfile.TemporaryDirectory() as folder:
        for item in arguments.bases:
            name, _, path = item.partition("=")
            if not path and name != "random":
                parser.error(f"{item}: write NAME=FOLDER, or random")
            base = Path(path).resolve() if path else random_base(workbook.base, Path(folder) / "random")
            tried = Experiment(
                f"ground_{name}",
                "ground",
                f"基座：{name}",
                every=arguments.every,
                questions=arguments.questions,
            )
            perform(replace(workbook, base=base), tried)
    print(experiment_table(workbook, "ground").T)


if __name__ == "__main__":
    main()
