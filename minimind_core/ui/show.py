"""The class show: ask one or two models, see what fact the answer should rest on, and write down the verdict."""

from __future__ import annotations

import csv
import datetime
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import ipywidgets as widgets

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import read_conversations
from minimind_core.evaluation.confidence import careful
from minimind_core.evaluation.generation import Decoding, generate
from minimind_core.evaluation.guard import ALIKE
from minimind_core.evaluation.metrics import is_right
from minimind_core.evaluation.retrieval import Lookup
from minimind_core.files import write_text
from minimind_core.ui.widgets import ChatPanel, Panel

COLUMNS = ("time", "asked_by", "question", "run", "answer", "fact", "matches", "verdict")
VERDICTS = {"对": "success", "部分对": "warning", "错": "danger"}


@dataclass(frozen=True)
class Basis:
    """The fact, or the model's own identity, that a question is about, as far as the training data tells."""

    fact: Fact | None
    reverse: bool = False  # the value was given, the subject is asked for
    identity: str = ""  # what an answer about the model itself has to contain

    def matches(self, answer: str) -> bool | None:
        """Whether an answer names the fact's value, or its subject when that was asked for, or who the model is; None without a basis."""
        if self.identity:
            return is_right(answer, self.identity)
        if self.fact is None:
            return None
        return is_right(answer, self.fact.subject) if self.reverse else is_right(answer, self.fact.value, subject=self.fact.subject)

    def line(self, answer: str) -> str:
        """What is shown below an answer."""
        if self.fact is None and not self.identity:
            return "依据：事实表里没有提到的对象，模型应当说不知道。"
        sign = "✓ 与事实一致" if self.matches(answer) else "✗ 与事实不符"
        known = f"身份设定 · {self.identity}" if self.identity else f"{self.fact.subject} · {self.fact.attribute} · {self.fact.value}"
        return f"依据：{known}　{sign}"


class ClassShow(ChatPanel):
    """A chat panel for the class: decoding sliders, a second model side by side, the fact behind the answer, verdict buttons."""

    def __init__(self, workbook: Workbook, runs: Sequence[str], presets: Sequence[str]) -> None:
        super().__init__(workbook, runs, presets)
        self.answered_by = ""
        self.second = widgets.Dropdown(options=["不比较", *runs], description="并排")
        self.asker = widgets.ToggleButtons(options=["本队", "别的队"], description="提问")
        self.temperature = widgets.FloatSlider(min=0, max=1.5, step=0.1, description="温度")
        self.penalty = widgets.FloatSlider(value=Decoding().repetition_penalty, min=1, max=1.5, step=0.05, description="重复惩罚")
        self.careful = widgets.Checkbox(value=True, description="把关：没把握就说不知道", indent=False, layout=widgets.Layout(width="auto"))
        self.reset = widgets.Button(description="清空")
        self.reset.on_click(lambda _: self.clear())
        self.verdicts = [widgets.Button(description=name, button_style=style, disabled=True) for name, style in VERDICTS.items()]
        for button in self.verdicts:
            button.on_click(lambda b: self.record(b.description))
        self.side, self.note = widgets.HTML(), widgets.HTML()
        controls = widgets.HBox(
            [self.second, self.asker, self.temperature, self.penalty, self.careful, self.reset], layout=widgets.Layout(flex_flow="row wrap")
        )
        self.view.children = (*self.view.children[:-1], controls, self.log, self.side, self.note, widgets.HBox(self.verdicts))

    @cached_property
    def facts(self) -> dict[tuple[str, str], Fact]:
        """All facts by subject and attribute."""
        return {(fact.subject, fact.attribute): fact for fact in read_facts(self.workbook.facts)}

    @cached_property
    def lookup(self) -> dict[str, tuple[Lookup, list]]:
        """Training questions about facts and about the model itself, for finding what a question is about."""
        rows = read_conversations(dataset_file(self.workbook, "train"))
        kinds = {kind: [row for row in rows if row.meta.get("kind") == kind] for kind in ("music", "identity")}
        return {kind: (Lookup(own), own) for kind, own in kinds.items()}

    def nearest(self, kind: str, question: str, least: float = 0.0) -> dict[str, str]:
        """What is known about the most similar training question of a kind, if it is similar enough."""
        lookup, rows = self.lookup[kind]
        index, similarity = lookup.nearest(question) if rows else (0, -1.0)
        return rows[index].meta if similarity >= least else {}

    def basis(self, question: str) -> Basis:
        """The fact of the most similar training question, if the question names its subject or value; or who the model is."""
        meta = self.nearest("music", question)
        fact = self.facts.get((meta.get("subject", ""), meta.get("attribute", "")))
        if fact is not None and any(name.strip("《》") in question for name in (fact.subject, fact.value)):
            return Basis(fact, reverse=meta["way"] == "reverse")
        return Basis(None, identity=self.nearest("identity", question, ALIKE).get("expected", ""))

    def decoding(self, run: str) -> Decoding:
        """What the controls say."""
        chosen = Decoding(temperature=self.temperature.value, repetition_penalty=self.penalty.value)
        return careful(self.workbook, run, chosen) if self.careful.value else chosen

    def ask(self, question: str) -> None:
        """Answer, show the fact behind it, and open the verdict buttons."""
        before = len(self.turns)
        super().ask(question)
        if len(self.turns) == before:
            return
        asked, answer = self.turns[-1]
        self.answered_by = self.run.value
        basis = self.basis(asked)
        self.note.value = f"<p>{html.escape(basis.line(answer))}</p>"
        self.side.value = ""
        if self.second.value != "不比较":
            (other,) = generate(*self.load(self.second.value), [[{"role": "user", "content": asked}]], self.decoding(self.second.value))
            self.side.value = f"<p><b>{html.escape(self.second.value)}：</b>{html.escape(other.text)}</p>"
        for button in self.verdicts:
            button.disabled = False

    def record(self, verdict: str) -> None:
        """Append the last answer with its verdict to report/results/class_show.csv."""
        question, answer = self.turns[-1]
        basis = self.basis(question)
        fact = "" if basis.fact is None else f"{basis.fact.subject}|{basis.fact.attribute}|{basis.fact.value}"
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        append_row(class_show_file(self.workbook), (now, self.asker.value, question, self.answered_by, answer, fact, basis.matches(answer), verdict))
        self.note.value = f"<p>已记录：{html.escape(verdict)}</p>"
        for button in self.verdicts:
            button.disabled = True

    def clear(self) -> None:
        """Forget the talk; what was recorded stays."""
        self.turns.clear()
        for box in (self.log, self.side, self.note):
            box.value = ""
        for button in self.verdicts:
            button.disabled = True

    def panel(self) -> Panel:
        """The displayable panel."""
        return Panel(self.view, lambda: self.log.value + self.note.value)


def class_show_file(workbook: Workbook) -> Path:
    """Where verdicts are kept."""
    return workbook.results / "class_show.csv"


def append_row(path: Path, row: Sequence[object]) -> None:
    """Add a row to a CSV file, with its header when it is new; the file is never half written."""
    lines = io.StringIO(path.read_text(encoding="utf-8") if path.is_file() else "", newline="")
    lines.seek(0, io.SEEK_END)
    writer = csv.writer(lines, lineterminator="\n")
    if lines.tell() == 0:
        writer.writerow(COLUMNS)
    writer.writerow(row)
    write_text(path, lines.getvalue())
