"""A few validation questions asked while a run trains: how identity and facts rise.

Only watched, nothing is chosen by them.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from minimind_core.devices import autocast
from minimind_core.evaluation.grading import Grader
from minimind_core.evaluation.suites import load_suites
from minimind_core.files import write_text
from minimind_core.inference.assistant import Assistant
from minimind_core.training.runs import Run
from minimind_core.training.trainer import StepRecord

ASKED = {"identity": ("身份", 12), "facts": ("事实", 24)}  # label and number of questions
INSTEAD = {"facts": "drawn"}  # where nobody has written questions for these facts
TIMES = 8  # in a whole training
COLUMNS = ("step", *ASKED)


class Quiz:
    """Asks at regular steps and remembers the shares of right answers; also kept in runs/NAME/quiz.csv."""

    def __init__(self, run: Run) -> None:
        self.run, self.every = run, max(1, len(run.source) // TIMES)
        self.grader = Grader(run.workbook)
        suites = load_suites(run.workbook, max(count for _, count in ASKED.values()), "valid")
        self.suites = {
            name: (suites[name] or suites[INSTEAD.get(name, name)])[:count]
            for name, (_, count) in ASKED.items()
        }
        self.scores: list[dict[str, Any]] = read_quiz(run.folder) if run.checkpoint.exists() else []

    def after(self, record: StepRecord) -> None:
        """Ask if it is time."""
        if record.step % self.every and record.step != record.total_steps:
            return
        self.run.model.eval()
        assistant = Assistant(self.run.model, self.run.tokenizer)
        row: dict[str, Any] = {"step": record.step}
        with autocast(self.run.model.device):  # the frozen matrices may be bfloat16, the adapter never is
            for name, questions in self.suites.items():
                answers = assistant.converse([question.turns for question in questions])
                right = [
                    self.grader.grade(q, own[-1]).right for q, own in zip(questions, answers, strict=True)
                ]
                row |= {name: sum(right) / len(right)} if right else {}
        self.scores = [*(score for score in self.scores if int(score["step"]) < record.step), row]
        lines = [",".join(str(score.get(name, "")) for name in COLUMNS) for score in self.scores]
        write_text(self.run.folder / "quiz.csv", "\n".join([",".join(COLUMNS), *lines]) + "\n")

    def line(self) -> str:
        """The last scores in words."""
        last = self.scores[-1] if self.scores else {}
        known = [
            (label, last.get(name)) for name, (label, _) in ASKED.items() if last.get(name) not in ("", None)
        ]
        return "".join(f"  {label} {float(share):.0%}" for label, share in known)


def read_quiz(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run folder's quiz.csv; none if it was never asked."""
    path = folder / "quiz.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
