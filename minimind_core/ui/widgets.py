"""Panels for the class: ask a question, see the answer; and plain HTML for a notebook that is only read."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import ipywidgets as widgets
import pandas as pd
from IPython.display import Code

from minimind_core.config import Workbook
from minimind_core.evaluation.confidence import careful
from minimind_core.evaluation.generation import Decoding, generate, stream
from minimind_core.evaluation.scoring import asked
from minimind_core.training.runs import load_run


def show_source(thing: Any) -> Code:
    """The real source of a function or class, highlighted."""
    return Code(inspect.getsource(thing), language="python")


def score_table(columns: dict[str, dict], names: dict[str, str]) -> pd.DataFrame:
    """Runs by suites, from the scores of each: share, count and 95 % interval; a suite without questions is left out."""

    def cell(score: dict) -> str:
        return f"{score['share']:.1%}（{score['right']}/{score['n']}，{score['low']:.1%}–{score['high']:.1%}）"

    shown = asked(columns.values(), names)
    return pd.DataFrame({run: {label: cell(scores[key]) for key, label in shown.items()} for run, scores in columns.items()})


def detail_table(result: dict, suite: str) -> pd.DataFrame:
    """Scores of a suite by kind of question, the weakest first."""
    rows = {key.split("/", 1)[1]: score for key, score in result["details"].items() if key.startswith(f"{suite}/")}
    table = pd.DataFrame(rows).T[["right", "n", "share"]].sort_values("share").astype({"right": int, "n": int})
    return table.assign(share=table["share"].map("{:.1%}".format)).rename(columns={"right": "答对", "n": "题数", "share": "正确率"})


def comparison_table(compared: dict[str, dict[str, float]], first: str, second: str, names: dict[str, str]) -> pd.DataFrame:
    """Suites by the questions that just one of two got right, and how likely chance alone does that."""
    rows = {
        names[suite]: {"题数": test["n"], f"只有{first}对": test["only_first"], f"只有{second}对": test["only_second"], "p": f"{test['p']:.2g}"}
        for suite, test in compared.items()
    }
    return pd.DataFrame(rows).T


def answer_table(answers: Sequence[dict], count: int = 12) -> pd.DataFrame:
    """Questions, expected values, answers and verdicts."""
    step = max(1, len(answers) // count)
    rows = [
        {"问题": a["question"], "应包含": a["expected"], "回答": a["answer"], "判定": "✓" if a["right"] else "✗"}
        for a in list(answers)[::step][:count]
    ]
    return pd.DataFrame(rows)


class Panel:
    """A widget with a static HTML twin, which is shown where widgets are not alive (saved or untrusted notebooks)."""

    def __init__(self, widget: widgets.Widget, static: Callable[[], str]) -> None:
        self.widget, self.static = widget, static

    def _repr_mimebundle_(self, **options: Any) -> dict:
        bundle = self.widget._repr_mimebundle_(**options)
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**bundle, "text/html": self.static(), "text/plain": "面板"}


class AnswerBrowser:
    """The kept answers of a run, filtered by suite, kind of question, verdict and words."""

    LIMIT = 40  # rows shown at once
    VERDICTS: ClassVar[dict[str, Callable[[dict], bool]]] = {
        "答错": lambda a: not a["right"],
        "答对": lambda a: a["right"],
        "拦下": lambda a: "own" in a,  # the guard made it say that it does not know
        "全部": lambda a: True,
    }

    def __init__(self, answers: Sequence[dict], suites: dict[str, str]) -> None:
        self.answers = list(answers)
        self.suite = widgets.Dropdown(options=[("全部", ""), *((label, suite) for suite, label in suites.items())], description="测试")
        self.detail = widgets.Dropdown(options=[("全部", "")], description="种类")
        self.verdict = widgets.ToggleButtons(options=list(self.VERDICTS), description="判定")
        self.words = widgets.Text(placeholder="问题或回答里的字", continuous_update=False, description="包含")
        self.table = widgets.HTML()
        self.suite.observe(lambda _: self.offer_details(), "value")
        for control in (self.suite, self.detail, self.verdict, self.words):
            control.observe(lambda _: self.refresh(), "value")
        controls = widgets.HBox([self.suite, self.detail, self.verdict, self.words], layout=widgets.Layout(flex_flow="row wrap"))
        self.view = widgets.VBox([controls, self.table])
        self.refresh()

    def offer_details(self) -> None:
        """Kinds of question within the chosen suite."""
        kinds = sorted({a["detail"] for a in self.answers if a["suite"] == self.suite.value})
        self.detail.options = [("全部", ""), *((kind, kind) for kind in kinds)]

    def chosen(self) -> list[dict]:
        """The answers that pass all filters."""
        fits = self.VERDICTS[self.verdict.value]
        return [
            a
            for a in self.answers
            if self.suite.value in ("", a["suite"])
            and self.detail.value in ("", a["detail"])
            and fits(a)
            and self.words.value in a["question"] + a["answer"]
        ]

    def refresh(self) -> None:
        """Show what the filters leave."""
        chosen = self.chosen()
        table = answer_table(chosen[: self.LIMIT], self.LIMIT)
        if any("own" in a for a in chosen[: self.LIMIT]):
            table["原话"] = [a.get("own", "") for a in chosen[: self.LIMIT]]
        more = f"，只显示前 {self.LIMIT} 道" if len(chosen) > self.LIMIT else ""
        self.table.value = f"<p>{len(chosen)} 道{more}</p>{table.to_html(index=False)}"

    def panel(self) -> Panel:
        """The displayable panel."""
        return Panel(self.view, lambda: self.table.value)


def transcript(turns: Sequence[tuple[str, str]]) -> str:
    """Questions and answers as HTML."""
    line = "<p style='margin:4px 0'><b>{}</b> {}</p>"
    return "".join(line.format("问：", html.escape(q)) + line.format("答：", html.escape(a)) for q, a in turns)


class ChatPanel:
    """Text box, send button, preset questions and run selector; the answer appears word by word."""

    def __init__(self, workbook: Workbook, runs: Sequence[str], presets: Sequence[str]) -> None:
        self.workbook, self.load = workbook, lru_cache(maxsize=2)(lambda name: load_run(workbook, name))
        self.turns: list[tuple[str, str]] = []
        self.run = widgets.Dropdown(options=list(runs), description="模型")
        # sent once, when the box is left: while the kernel is busy, single letters would still be waiting when the button is clicked
        self.box = widgets.Text(placeholder="请输入问题…", continuous_update=False, layout=widgets.Layout(width="60%"))
        self.send = widgets.Button(description="发送", button_style="primary")
        self.log = widgets.HTML()
        self.presets = [widgets.Button(description=q, tooltip=q, layout=widgets.Layout(width="auto")) for q in presets]
        self.send.on_click(lambda _: self.ask(self.box.value))
        for button in self.presets:
            button.on_click(lambda b: self.ask(b.description))
        self.view = widgets.VBox([
            self.run, widgets.HBox(self.presets, layout=widgets.Layout(flex_flow="row wrap")),
            widgets.HBox([self.box, self.send]), self.log,
        ])  # fmt: skip

    def ask(self, question: str) -> None:
        """Answer one question, showing each token as it comes."""
        question = question.strip()
        if not question:
            return
        model, tokenizer = self.load(self.run.value)
        text = ""
        for text in stream(model, tokenizer, [{"role": "user", "content": question}], self.decoding(self.run.value)):
            self.log.value = transcript([*self.turns, (question, text)])
        self.turns.append((question, text))
        self.log.value = transcript(self.turns)
        self.box.value = ""

    def decoding(self, run: str) -> Decoding:
        """How a run's answers are chosen."""
        return careful(self.workbook, run)

    def ask_all(self, questions: Sequence[str]) -> None:
        """Answer several questions at once, for a notebook that runs without a person."""
        model, tokenizer = self.load(self.run.value)
        answers = generate(model, tokenizer, [[{"role": "user", "content": q}] for q in questions], self.decoding(self.run.value))
        self.turns += [(q, a.text) for q, a in zip(questions, answers, strict=True)]
        self.log.value = transcript(self.turns)

    def panel(self) -> Panel:
        """The displayable panel."""
        return Panel(self.view, lambda: transcript(self.turns))
