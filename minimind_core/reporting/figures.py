"""Every picture, made from results files by one function each, in one style."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import pylopdf_fonts_zh_cn
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minimind_core.config import Workbook
from minimind_core.conversations.mixing import KIND_NAMES
from minimind_core.conversations.schema import Conversation
from minimind_core.evaluation.quiz import ASKED
from minimind_core.evaluation.suites import suite_labels, suites_with_questions
from minimind_core.files import replacing

# Okabe and Ito's colour-blind safe palette
BLUE, ORANGE, GREEN, GREY = ("#0072B2", "#E69F00", "#009E73", "#8A8A8A")


@cache
def add_font() -> None:
    """Make the package's Chinese font known to matplotlib."""
    font_manager.fontManager.addfont(str(pylopdf_fonts_zh_cn.sans_path()))


def use_style() -> None:
    """Chinese font from a package, white background, light grid."""
    add_font()
    matplotlib.rcParams.update({
        "font.family": ["Noto Sans SC", "DejaVu Sans"], "axes.unicode_minus": False, "figure.dpi": 80,
        "savefig.dpi": 200,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
        "font.size": 10,
        "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE, GREEN, GREY]), "svg.hashsalt": "minimind",
    })  # fmt: skip


def blank(*shape: int, **settings: Any) -> tuple[Figure, Any]:
    """A new figure and its axes in our style, forgotten by pyplot so that a notebook does not show it a
    second time.
    """
    use_style()
    figure, axes = plt.subplots(*shape, **settings)
    plt.close(figure)
    return figure, axes


def save_figure(figure: Figure, workbook: Workbook, name: str) -> Path:
    """Write figures/NAME.png and .svg; returns the PNG's path."""
    for suffix in ("svg", "png"):
        path = workbook.figures / f"{name}.{suffix}"
        with replacing(path) as temporary:
            figure.savefig(
                temporary,
                format=suffix,
                bbox_inches="tight",
                metadata={"Date": None} if suffix == "svg" else {},
            )
    return path


def loss_figure(metrics: Sequence[dict[str, str]], quiz: Sequence[dict] = ()) -> Figure:
    """Losses against steps, nats per answer token: each step's, their running mean, the validation's.

    `quiz` adds its scores at the right.
    """
    figure, axes = blank(figsize=(7, 3.4))
    steps = [int(row["step"]) for row in metrics]
    losses, means = ([float(row[key]) for row in metrics] for key in ("loss", "mean_loss"))
    axes.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=0.8, label="训练损失（每步）")
    axes.plot(steps, means, color=BLUE, linewidth=1.8, label="训练损失（滑动平均）")
    if valid := points(metrics, "valid_loss"):
        label = "验证损失（没学过的问法）"
        axes.plot(*zip(*valid, strict=True), "o-", color=ORANGE, markersize=4, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="训练步数", ylabel="损失（nats / 回答词元）", ylim=(0, None))
    if quiz:
        add_quiz(axes, quiz)
    axes.legend(frameon=False, loc="center right" if quiz else "best")
    return figure


def points(rows: Sequence[dict], name: str, times: float = 1) -> list[tuple[int, float]]:
    """Step and value of the rows that have the value."""
    return [(int(r["step"]), times * float(r[name])) for r in rows if r.get(name) not in ("", None)]


def add_quiz(axes: Axes, quiz: Sequence[dict]) -> None:
    """The quiz' scores in per cent, on an axis at the right."""
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    marks = zip(ASKED.items(), (GREEN, GREY), ("s--", "^--"), strict=True)
    for (name, (label, _)), colour, mark in marks:
        axes.plot([], [], mark, color=colour, markersize=4, label=f"{label}小测（没学过的问法）")
        if scores := points(quiz, name, 100):
            right.plot(*zip(*scores, strict=True), mark, color=colour, markersize=4)
    right.set(ylabel="答对（%）", ylim=(0, 105))
    right.grid(False)


def scores_figure(columns: dict[str, dict]) -> Figure:
    """Share of right answers by suite, one bar a column of scores, with 95 % intervals.

    Columns after the claim check are light.
    """
    figure, axes = blank(figsize=(11, 4.0))
    shown = suites_with_questions(columns.values(), suite_labels())
    width = 0.84 / len(columns)
    models = list(dict.fromkeys(name.split(" + ")[0] for name in columns))
    for index, (name, column) in enumerate(columns.items()):
        colour = (GREY, ORANGE, GREEN, BLUE)[models.index(name.split(" + ")[0]) % 4]
        scores = [column[suite] for suite in shown]
        places = [i + (index - (len(columns) - 1) / 2) * width for i in range(len(shown))]
        shares = [100 * s["share"] for s in scores]
        spread = [
            [100 * (s["share"] - s["low"]) for s in scores],
            [100 * (s["high"] - s["share"]) for s in scores],
        ]
        alpha = 0.5 if " + " in name else 1
        axes.bar(places, shares, width * 0.92, yerr=spread, capsize=2, label=name, color=colour, alpha=alpha)
        for x, share, score in zip(places, shares, scores, strict=True):
            axes.text(x, 100 * score["high"] + 2, f"{share:.0f}", ha="center", fontsize=6)
    axes.set(ylabel="答对的比例（%）", ylim=(0, 114), xticks=range(len(shown)))
    axes.set_xticklabels(["\n".join(textwrap.wrap(label, 6)) for label in shown.values()], fontsize=8)
    axes.legend(frameon=False, ncols=len(columns), loc="upper left", bbox_to_anchor=(0, 1.13))
    return figure


def base_loss_figure(stages: Sequence[Sequence[tuple[int, float]]]) -> Figure:
    """Running mean of a base's training loss against tokens seen, one line a stage.

    Each stage is (tokens, loss) points.
    """
    figure, axes = blank(figsize=(7, 3.2))
    for points in stages:
        axes.plot([tokens / 1e6 for tokens, _ in points], [loss for _, loss in points])
    axes.set(xlabel="训练词元（百万）", ylabel="损失（nats / 词元）")
    return figure


def interleaved_figure(losses: Sequence[float], every: int) -> Figure:
    """Losses as a log printed them, and the same numbers split into the `every` batches that come round each
    epoch.
    """
    figure, (left, right) = blank(1, 2, figsize=(7, 2.8), sharey=True)
    left.plot(range(1, len(losses) + 1), losses, color=GREY, linewidth=1)
    left.set(title="日志里的样子", xlabel="第几次打印", ylabel="损失（nats / 词元）")
    for index, colour in zip(range(every), (BLUE, ORANGE, GREEN, GREY), strict=False):
        right.plot(
            range(1, len(losses[index::every]) + 1),
            losses[index::every],
            "o-",
            markersize=3,
            color=colour,
            label=f"每轮打印的第 {index + 1} 批",
        )
    right.set(title="拆成三批来看", xlabel="轮")
    right.legend(frameon=False)
    figure.tight_layout()
    return figure


def dataset_figure(rows: Sequence[Conversation]) -> Figure:
    """Rows of the training file by kind, and those about facts by attribute."""
    figure, (left, right) = blank(1, 2, figsize=(7, 3.2), width_ratios=(1, 1.6))
    kinds = Counter(KIND_NAMES.get(row.meta.get("kind", ""), "其他") for row in rows)
    bars = left.bar(list(kinds), list(kinds.values()), color=[BLUE, ORANGE, GREEN, GREY][: len(kinds)])
    left.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    left.margins(y=0.1)  # room for the topmost number
    left.set(ylabel="训练行数", title="训练文件的组成")
    attributes = Counter(row.meta["attribute"] for row in rows if row.meta.get("kind") == "fact").most_common(
        8
    )
    right.barh([name for name, _ in attributes][::-1], [count for _, count in attributes][::-1], color=BLUE)
    right.set(xlabel="训练行数", title="问得最多的属性")
    figure.tight_layout()
    return figure


def learned_figure(results: dict[str, dict]) -> Figure:
    """Right answers to wordings written by others against trainable parameters, one point an experiment,
    labelled with its rank.
    """
    figure, axes = blank(figsize=(7, 3.4))
    for name, colour, targets, aside in (
        ("七种线性层", BLUE, 7, (6, -12)),
        ("只有 q、o", ORANGE, 2, (-30, 6)),
    ):
        runs = [
            r["run"] | r["scores"]["facts"]
            for r in results.values()
            if len(r["run"]["lora"]["target_modules"]) == targets
        ]
        runs.sort(key=lambda run: run["trainable_parameters"])
        places, shares = [run["trainable_parameters"] for run in runs], [100 * run["share"] for run in runs]
        spread = [
            [100 * (run["share"] - run["low"]) for run in runs],
            [100 * (run["high"] - run["share"]) for run in runs],
        ]
        axes.errorbar(places, shares, yerr=spread, fmt="o-", color=colour, capsize=3, label=name)
        for place, share, run in zip(places, shares, runs, strict=True):
            axes.annotate(
                f"r={run['lora']['rank']}",
                (place, share),
                textcoords="offset points",
                xytext=aside,
                fontsize=8,
            )
    axes.set(xscale="log", xlabel="可训练参数", ylabel="新问法答对（%）", ylim=(0, 104))
    axes.legend(frameon=False)
    return figure


def rank_figure(ranks: Sequence[int], presets: dict[str, Sequence[int]]) -> Figure:
    """Trainable parameters against rank for each preset of target modules."""
    figure, axes = blank(figsize=(6, 3.2))
    for name, counts in presets.items():
        axes.plot(ranks, [count / 1e6 for count in counts], "o-", label=name)
    axes.set(xlabel="秩 r", ylabel="可训练参数（百万）")
    axes.legend(frameon=False)
    return figure
