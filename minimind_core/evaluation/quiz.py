"""A few test questions asked while a run trains: how identity and topic rise. Only watched, nothing is chosen by them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from minimind_core.devices import autocast
from minimind_core.evaluation.suites import load_suites, run_suites
from minimind_core.files import write_text
from minimind_core.training.runs import Run
from minimind_core.training.trainer import StepRecord

ASKED = {"identity": 12, "music_held_out": 24}  # questions of each suite
TIMES = 8  # in a whole training
COLUMNS = ("step", *ASKED)


class Quiz:
    """Asks at regular steps and remembers the shares of right answers; also kept in runs/NAME/quiz.csv."""

    def __init__(self, run: Run) -> None:
        self.run, self.every = run, max(1, len(run.source) // TIMES)
        suites = load_suites(run.workbook, max(ASKED.values()))
        self.suites = {name: suites[name][:count] for name, count in ASKED.items() if suites[name]}
        self.scores: list[dict[str, Any]] = read_quiz(run.folder) if run.checkpoint.exists() else []

    def after(self, record: StepRecord) -> None:
        """Ask if it is time."""
        if record.step % self.every and record.step != record.total_steps:
            return
        self.run.model.eval()
        with autocast(self.run.model.device):  # the frozen matrices may be bfloat16, the adapter never is
            graded = run_suites(self.run.model, self.run.tokenizer, self.run.workbook, self.suites)
        own = {name: [g.right for g in graded if g.suite == name] for name in self.suites}
        row = {"step": record.step, **{name: sum(right) / len(right) for name, right in own.items()}}
        self.scores = [*(score for score in self.scores if int(score["step"]) < record.step), row]
        lines = [",".join(str(score.get(name, "")) for name in COLUMNS) for score in self.scores]
        write_text(self.run.folder / "quiz.csv", "\n".join([",".join(COLUMNS), *lines]) + "\n")

    def line(self) -> str:
        """The last scores in words."""
        if not self.scores:
            return ""
        last = self.scores[-1]
        named = {"identity": "身份", "music_held_out": "音乐"}
        return "".join(f"  {label} {float(last[name]):.0%}" for name, label in named.items() if last.get(name) not in ("", None))


def read_quiz(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run folder's quiz.csv; none if it was never asked."""
    path = folder / "quiz.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
