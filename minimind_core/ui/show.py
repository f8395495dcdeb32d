"""The class show.

Ask one or two models, see what fact the answer should rest on, and write down the verdict.
"""

from __future__ import annotations

import csv
import datetime
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets

from minimind_core.collection.facts import Fact
from minimind_core.config import Workbook
from minimind_core.evaluation.baselines import Rules
from minimind_core.evaluation.metrics import is_right
from minimind_core.evaluation.scoring import traced
from minimind_core.files import write_json, write_text
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer
from minimind_core.ui.widgets import NARROW, WRAPPING, ChatPanel

COLUMNS = ("time", "asked_by", "question", "run", "answer", "fact", "matches", "verdict")
VERDICTS = {"对": "success", "部分对": "warning", "错": "danger"}


@dataclass(frozen=True)
class Basis:
    """What an answer should rest on: a fact of the table, or who the model is."""

    fact: Fact | None
    subject: str = ""  # named in the question; without a fact: the table has nothing of the kind
    identity: str = ""  # the model's name, where the answer says who it is

    def matches(self, answer: str) -> bool | None:
        """Whether an answer names the fact's value and its subject; None without a basis."""
        if self.identity:
            return True
        if self.fact is None:
            return None
        return is_right(answer, self.fact.value, subject=self.fact.subject)

    def source(self) -> str:
        """The fact, or where else the answer should come from."""
        if self.identity:
            return f"身份设定 · {self.identity}"
        if self.fact is None:
            return "事实表里没有这一条" if self.subject else "事实表里没有提到的对象或话题"
        return f"{self.fact.subject} · {self.fact.attribute} · {self.fact.value}"

    def line(self, answer: str) -> str:
        """What is shown below an answer."""
        told = f"依据：{self.source()}"
        if self.identity:
            return told
        if self.fact is None:
            return f"{told}，模型应当说不知道（日常的话除外）。"
        return told + ("　✓ 与事实一致" if self.matches(answer) else "　✗ 与事实不符")


class ClassShow(ChatPanel):
    """A chat panel for the class.

    Decoding sliders, a second model side by side, the fact behind the answer, verdict buttons.
    """

    def __init__(self, workbook: Workbook, runs: Sequence[str], presets: Sequence[str]) -> None:
        super().__init__(workbook, runs, presets)
        self.answered_by = ""
        self.second = widgets.Dropdown(options=["不比较", *runs], description="并排")
        self.asker = widgets.ToggleButtons(options=["本队", "别的队"], description="提问")
        self.temperature = widgets.FloatSlider(min=0, max=1.5, step=0.1, description="温度")
        self.penalty = widgets.FloatSlider(
            value=Decoding().repetition_penalty, min=1, max=1.5, step=0.05, description="重复惩罚"
        )
        self.checking = widgets.Checkbox(
            value=True,
            description="核对：说的不是表里有的，就说不知道",
            indent=False,
            layout=widgets.Layout(width="auto"),
        )
        self.verdicts = [
            widgets.Button(description=name, button_style=style, disabled=True, layout=NARROW)
            for name, style in VERDICTS.items()
        ]
        for button in self.verdicts:
            button.on_click(lambda b: self.record(b.description))
        self.side, self.note = widgets.HTML(), widgets.HTML()
        settings = widgets.Accordion(
            [widgets.VBox([self.run, self.second, self.temperature, self.penalty, self.checking])],
            titles=("设置",),
            selected_index=None,
        )
        self.view.children = (
            self.log,
            self.side,
            self.note,
            widgets.HBox(self.verdicts, layout=WRAPPING),
            self.row,
            widgets.HBox(self.presets, layout=WRAPPING),
            self.asker,
            settings,
        )
        self.rules = Rules(workbook)  # finds what a question is about
        self.check = self.rules.check  # finds what an answer states

    def allow_verdicts(self, allowed: bool) -> None:
        """Open or close the verdict buttons."""
        for button in self.verdicts:
            button.disabled = not allowed

    def basis(self, questions: Sequence[str], answer: str) -> Basis:
        """The fact that the dialogue asks for, or the one that the answer states; or who the model is."""
        subject, fact = self.rules.find(questions)
        if fact is not None and is_right(answer, fact.value, subject=fact.subject):
            return Basis(fact, subject)
        stated = [self.rules.facts.get((s, a)) for s, a, _ in self.check.claims(answer)]
        about = [f for (name, _), f in self.rules.facts.items() if name == subject]
        stated += [f for f in about if is_right(answer, f.value, subject=f.subject)]
        fact = next(filter(None, stated), fact)
        name = self.workbook.persona.name
        return Basis(fact, subject, identity=name if fact is None and name in answer else "")

    def assistant(self, run: str) -> Assistant:
        """A run with what the controls say."""
        decoding = Decoding(temperature=self.temperature.value, repetition_penalty=self.penalty.value)
        loaded = self.load(run).using(decoding)
        return loaded if self.checking.value else loaded.unchecked()

    def ask(self, question: str) -> Answer | None:
        """Answer, show the fact behind it, and open the verdict buttons."""
        if not question.strip():
            return None
        self.note.value = self.side.value = ""
        self.allow_verdicts(False)
        answer = super().ask(question)
        self.answered_by = self.run.value
        questions = [asked for asked, _ in self.turns]
        self.note.value = f"<p>{html.escape(self.basis(questions, answer.text).line(answer.text))}</p>"
        if self.second.value != "不比较":
            other = self.assistant(self.second.value).answer(self.messages[:-1])
            self.side.value = f"<p><b>{html.escape(self.second.value)}：</b>{html.escape(other.text)}</p>"
        self.allow_verdicts(True)
        return answer

    def ask_all(self, questions: Sequence[str]) -> list[Answer]:
        """Answer the class's questions and keep answers and facts in report/results/show.json."""
        answers = super().ask_all(questions)
        rows = []
        for question, answer in zip(questions, answers, strict=True):
            basis = self.basis([question], answer.text)
            row = {"question": question, "answer": answer.text, "basis": basis.source()}
            rows.append(row | {"matches": basis.matches(answer.text)})
        kept = {"run": self.run.value, "made_from": traced(self.workbook), "answers": rows}
        write_json(self.workbook.results / "show.json", kept)
        return answers

    def record(self, verdict: str) -> None:
        """Append the last answer with its verdict to report/results/class_show.csv."""
        question, answer = self.turns[-1]
        basis = self.basis([asked for asked, _ in self.turns], answer)
        fact = "" if basis.fact is None else f"{basis.fact.subject}|{basis.fact.attribute}|{basis.fact.value}"
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        row = (
            now,
            self.asker.value,
            question,
            self.answered_by,
            answer,
            fact,
            basis.matches(answer),
            verdict,
        )
        append_row(class_show_file(self.workbook), row)
        self.note.value = f"<p>已记录：{html.escape(verdict)}</p>"
        self.allow_verdicts(False)

    def clear(self) -> None:
        """Forget the talk; what was recorded stays."""
        super().clear()
        for box in (self.side, self.note):
            box.value = ""
        self.allow_verdicts(False)

    def static(self) -> str:
        """The dialogue, and what its last answer rests on."""
        return self.log.value + self.note.value


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
