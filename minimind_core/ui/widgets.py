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
from minimind_core.evaluation.suites import suites_with_questions
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.generation import Answer
from minimind_core.modeling.tokenizer import Message


def show_source(thing: Any) -> Code:
    """The real source of a function or class, highlighted."""
    return Code(inspect.getsource(thing), language="python")


def score_table(columns: dict[str, dict], names: dict[str, str]) -> pd.DataFrame:
    """Runs by suites, from the scores of each: share, count and 95 % interval.

    A suite without questions is left out.
    """

    def cell(score: dict) -> str:
        return (
            f"{score['share']:.1%}（{score['right']}/{score['n']}，{score['low']:.1%}–{score['high']:.1%}）"
        )

    shown = suites_with_questions(columns.values(), names)
    return pd.DataFrame(
        {run: {label: cell(scores[key]) for key, label in shown.items()} for run, scores in columns.items()}
    )


def detail_table(result: dict, suite: str) -> pd.DataFrame:
    """Scores of a suite by kind of question, the weakest first."""
    rows = {
        key.split("/", 1)[1]: score for key, score in result["details"].items() if key.startswith(f"{suite}/")
    }
    table = (
        pd.DataFrame(rows).T[["right", "n", "share"]].sort_values("share").astype({"right": int, "n": int})
    )
    return table.assign(share=table["share"].map("{:.1%}".format)).rename(
        columns={"right": "答对", "n": "题数", "share": "正确率"}
    )


def comparison_table(
    compared: dict[str, dict[str, float]], first: str, second: str, names: dict[str, str]
) -> pd.DataFrame:
    """Suites by the questions that just one of two got right, and how likely chance alone does that."""
    rows = {
        names[suite]: {
            "题数": test["n"],
            f"只有{first}对": test["only_first"],
            f"只有{second}对": test["only_second"],
            "p": f"{test['p']:.2g}",
        }
        for suite, test in compared.items()
    }
    return pd.DataFrame(rows).T


def answer_table(answers: Sequence[dict], count: int = 12) -> pd.DataFrame:
    """Questions, expected values, answers, verdicts, what is wrong, and the answer after the check."""
    step = max(1, len(answers) // count)
    rows = []
    for answer in list(answers)[::step][:count]:
        question = " → ".join([*answer["before"], answer["question"]])
        row = {
            "问题": question,
            "应包含": answer["expected"],
            "回答": answer["answer"],
            "判定": "✓" if answer["right"] else "✗",
        }
        rows.append(row | {"错在": answer.get("cause", ""), "核对之后": answer.get("checked", "")})
    table = pd.DataFrame(rows)
    return table.drop(columns=[name for name in ("错在", "核对之后") if rows and not any(table[name])])


def cause_table(answers: Sequence[dict], names: dict[str, str]) -> pd.DataFrame:
    """How many wrong answers of each suite have each cause."""
    wrong = pd.DataFrame(
        [(names[a["suite"]], a["cause"]) for a in answers if a.get("cause")], columns=["测试", "错在"]
    )
    return pd.crosstab(wrong["测试"], wrong["错在"], margins=True, margins_name="合计")


class Panel:
    """A widget, `view`, with a static HTML twin for where widgets are not alive (saved notebooks)."""

    view: widgets.Widget

    def static(self) -> str:
        """The HTML twin."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> dict:
        bundle = self.view._repr_mimebundle_(**options)
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**bundle, "text/html": self.static(), "text/plain": "面板"}


class AnswerBrowser(Panel):
    """The kept answers of a run, filtered by suite, kind of question, verdict and words."""

    LIMIT = 40  # rows shown at once
    VERDICTS: ClassVar[dict[str, Callable[[dict], bool]]] = {
        "答错": lambda a: not a["right"],
        "答对": lambda a: a["right"],
        "核对改过": lambda a: "checked" in a,  # the claim check made it say that it does not know
        "全部": lambda a: True,
    }

    def __init__(self, answers: Sequence[dict], suites: dict[str, str]) -> None:
        self.answers = list(answers)
        self.suite = widgets.Dropdown(
            options=[("全部", ""), *((label, suite) for suite, label in suites.items())], description="测试"
        )
        self.detail = widgets.Dropdown(options=[("全部", "")], description="种类")
        self.verdict = widgets.ToggleButtons(options=list(self.VERDICTS), description="判定")
        self.words = widgets.Text(placeholder="问题或回答里的字", continuous_update=False, description="包含")
        self.table = widgets.HTML()
        self.suite.observe(lambda _: self.offer_details(), "value")
        for control in (self.suite, self.detail, self.verdict, self.words):
            control.observe(lambda _: self.refresh(), "value")
        controls = widgets.HBox(
            [self.suite, self.detail, self.verdict, self.words], layout=widgets.Layout(flex_flow="row wrap")
        )
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
        more = f"，只显示前 {self.LIMIT} 道" if len(chosen) > self.LIMIT else ""
        self.table.value = f"<p>{len(chosen)} 道{more}</p>{table.to_html(index=False)}"

    def static(self) -> str:
        """The table."""
        return self.table.value


# The newest line stays in view: a column from the bottom up keeps its end there, however long it gets.
SCROLLED = "display:flex;flex-direction:column-reverse;max-height:55vh;overflow-y:auto"


def transcript(messages: Sequence[Message], note: str = "") -> str:
    """A dialogue as HTML, with a note below the last answer."""
    line = "<p style='margin:4px 0'><b>{}</b> {}</p>"
    names = {"user": "问：", "assistant": "答："}
    shown = "".join(
        line.format(names[m["role"]], html.escape(m["content"])) for m in messages if m["role"] in names
    )
    shown += f"<p style='margin:4px 0;color:#777'>{html.escape(note)}</p>" if note else ""
    return f"<div style='{SCROLLED}'><div>{shown}</div></div>"


def withdrawn_note(answer: Answer) -> str:
    """What is said of an answer that the claim check withdrew."""
    return "" if answer.own is None else f"模型原来说“{answer.own}”，没有通过核对。"


NARROW = widgets.Layout(width="auto", flex="0 0 auto")  # of a button: as wide as its words
WRAPPING = widgets.Layout(flex_flow="row wrap")


class ChatPanel(Panel):
    """Answers first, below them a text box, preset questions and the choice of a run.

    Enter sends. The box is empty at once, the answer appears word by word, the dialogue is remembered; what
    is asked while an answer is being written waits for its turn.
    """

    def __init__(self, workbook: Workbook, runs: Sequence[str], presets: Sequence[str]) -> None:
        self.workbook, self.load = workbook, lru_cache(maxsize=2)(lambda name: Assistant.load(workbook, name))
        self.messages: list[Message] = []
        self.entered = False  # Enter was pressed, and the text is still to come
        self.run = widgets.Dropdown(options=list(runs), description="模型")
        # sent once, when the box is left: while the kernel is busy, single letters would still be waiting
        # when the button is clicked
        self.box = widgets.Text(
            placeholder="请输入问题…",
            continuous_update=False,
            layout=widgets.Layout(flex="1 1 0", min_width="0"),
        )
        self.send = widgets.Button(description="发送", button_style="primary", layout=NARROW)
        self.reset = widgets.Button(description="清空", layout=NARROW)
        self.log = widgets.HTML()
        self.presets = [widgets.Button(description=q, tooltip=q, layout=NARROW) for q in presets]
        self.box.on_msg(self.on_enter)
        self.box.observe(lambda _: self.on_text(), "value")
        self.send.on_click(lambda _: self.ask(self.box.value))
        self.reset.on_click(lambda _: self.clear())
        for button in self.presets:
            button.on_click(lambda b: self.ask(b.description))
        self.row = widgets.HBox([self.box, self.send, self.reset])
        self.view = widgets.VBox([self.log, self.row, widgets.HBox(self.presets, layout=WRAPPING), self.run])

    def on_enter(self, box: widgets.Text, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        """The browser tells of the key first and of the text after it, unless the text was known before."""
        if content.get("event") == "submit":
            self.entered = not self.box.value.strip()
            if not self.entered:
                self.ask(self.box.value)

    def on_text(self) -> None:
        """Ask what Enter was pressed for."""
        if self.entered and self.box.value.strip():
            self.ask(self.box.value)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Questions and answers so far."""
        texts = [message["content"] for message in self.messages]
        return list(zip(texts[::2], texts[1::2], strict=False))

    def assistant(self, run: str) -> Assistant:
        """A run with the panel's settings."""
        return self.load(run)

    def ask(self, question: str) -> Answer | None:
        """Answer one question in the dialogue so far, showing each token as it comes."""
        question = question.strip()
        if not question:
            return None
        self.entered, self.box.value = False, ""
        self.messages.append({"role": "user", "content": question})
        self.log.value = transcript(self.messages, "正在回答…")
        answer = None
        try:
            for answer in self.assistant(self.run.value).stream(self.messages):
                said = {"role": "assistant", "content": answer.text}
                self.log.value = transcript([*self.messages, said], withdrawn_note(answer))
        except Exception:  # a run that cannot be loaded, say: the question was not asked
            self.messages.pop()
            self.log.value = transcript(self.messages, "没有答成，原因见下面的错误信息。")
            raise
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer

    def ask_all(self, questions: Sequence[str]) -> list[Answer]:
        """Answer several questions, each for itself, for a notebook that runs without a person."""
        dialogues = [[{"role": "user", "content": question}] for question in questions]
        answers = self.assistant(self.run.value).answer_all(dialogues)
        for dialogue, answer in zip(dialogues, answers, strict=True):
            self.messages += [*dialogue, {"role": "assistant", "content": answer.text}]
        self.log.value = transcript(self.messages)
        self.messages.clear()  # they were no dialogue: the next question begins one
        return answers

    def clear(self) -> None:
        """Forget the dialogue."""
        self.messages.clear()
        self.log.value = ""

    def static(self) -> str:
        """The dialogue."""
        return self.log.value
