"""Drawings that explain: the network with its adapters, one fact from row to answer."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from minimind_core.config import LINEAR_NAMES, LoraConfig, ModelConfig
from minimind_core.reporting.fact_way import FactWay
from minimind_core.reporting.figures import BLUE, GREY, blank

FROZEN, LEARNT, PLAIN = "#d9e2ec", "#ffd8a8", "#ffffff"
LINEARS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "gate_proj": "gate", "up_proj": "up",
    "down_proj": "down"}  # fmt: skip
Place = tuple[float, float]
LONGEST = 70  # characters of a line of text
SHOWN = 48  # tokens that fit beside each other in two lines
TITLES = (
    "① 训练文件里的一行",
    "② 变成词元：橙色的要学，蓝色的只给模型看",
    "③ 每个要学的词元的损失：越低，模型越会写它",
    "④ 训练改了哪里：每个矩阵的增量有多大，颜色越深改得越多",
    "⑤ 再问一次同样的问题",
)


def box(axes: Axes, place: Place, size: Place, text: str, color: str) -> None:
    """A box with its words; `place` is its centre."""
    (x, y), (width, height) = place, size
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.02,rounding_size=0.08",
        facecolor=color, edgecolor="#52606d", linewidth=0.8,
    )  # fmt: skip
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(axes: Axes, start: Place, end: Place) -> None:
    """An arrow from one place to another."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color="#52606d", linewidth=0.8)
    )


def architecture_figure(model: ModelConfig, lora: LoraConfig) -> Figure:
    """MiniMind from tokens to the next token's probabilities, and where LoRA is added."""
    figure, axes = blank(figsize=(8.6, 4.6))
    axes.set(xlim=(0, 10), ylim=(0, 7.2))
    axes.axis("off")
    draw_network(axes, model, lora)
    draw_adapter(axes, model, lora)
    return figure


def draw_network(axes: Axes, model: ModelConfig, lora: LoraConfig) -> None:
    """The left side: embedding, blocks, output."""
    adapted = {LINEARS[name] for name in lora.target_modules}
    attention = "、".join(f"{n}*" if n in adapted else n for n in ("q", "k", "v", "o"))
    forward = "、".join(f"{n}*" if n in adapted else n for n in ("gate", "up", "down"))
    stages = [
        (0.6, f"词元（词表 {model.vocab_size:,}）", PLAIN),
        (1.5, f"嵌入，每个词元 {model.hidden_size} 个数", FROZEN),
        (2.7, f"注意力（{model.n_heads} 个头）：{attention}", LEARNT if "*" in attention else FROZEN),
        (3.9, f"前馈（宽 {model.intermediate_size:,}）：{forward}", LEARNT if "*" in forward else FROZEN),
        (5.3, "输出（和嵌入共用一个矩阵）", FROZEN),
        (6.3, "下一个词元的概率", PLAIN),
    ]
    for y, text, color in stages:
        box(axes, (2.5, y), (4.2, 0.6), text, color)
    for (low, *_), (high, *_) in zip(stages, stages[1:], strict=False):
        arrow(axes, (2.5, low + 0.33), (2.5, high - 0.33))
    frame = FancyBboxPatch((0.2, 2.15), 4.6, 2.35, boxstyle="round,pad=0.02", fill=False, linestyle="--")
    axes.add_patch(frame)
    axes.text(4.75, 4.62, f"× {model.n_layers} 层", ha="right", fontsize=9)


def draw_adapter(axes: Axes, model: ModelConfig, lora: LoraConfig) -> None:
    """The right side: one linear layer with its adapter."""
    size = model.hidden_size
    axes.text(7.5, 6.75, "带 * 的每一个线性层", ha="center", fontsize=9)
    box(axes, (7.5, 0.9), (1.6, 0.6), "输入 x", PLAIN)
    box(axes, (6.3, 3.2), (1.7, 1.2), f"W（冻结）\n{size} × {size}", FROZEN)
    box(axes, (8.7, 2.4), (1.9, 0.7), f"A（要学）{lora.rank} × {size}", LEARNT)
    box(axes, (8.7, 3.9), (1.9, 0.7), f"B（要学）{size} × {lora.rank}", LEARNT)
    box(axes, (8.7, 4.9), (1.9, 0.5), f"× α/r = {lora.scale:g}", PLAIN)
    box(axes, (7.5, 6.1), (1.6, 0.6), "相加，输出 y", PLAIN)
    for start, end in (
        ((7.2, 1.23), (6.4, 2.57)), ((7.8, 1.23), (8.6, 2.02)), ((8.7, 2.78), (8.7, 3.52)),
        ((8.7, 4.28), (8.7, 4.62)), ((6.4, 3.83), (7.2, 5.77)), ((8.6, 5.18), (7.8, 5.77)),
    ):  # fmt: skip
        arrow(axes, start, end)


def fact_figure(way: FactWay) -> Figure:
    """Row, tokens, losses, update and answer, one below the other."""
    heights = (0.7, 1.1, 1.8, 1.8, 0.7)
    figure, axes = blank(5, 1, figsize=(9, 7.8), height_ratios=heights, layout="constrained")
    for place, title in zip(axes, TITLES, strict=True):
        place.set_title(title, loc="left", fontsize=10)
    draw_lines(axes[0], f"问：{way.question}", f"答：{way.answer}")
    draw_tokens(axes[1], way.tokens[:SHOWN])
    draw_losses(axes[2], way)
    draw_update(axes[3], way)
    draw_lines(axes[4], f"基座：{way.said_before}", f"训练之后：{way.said_after}")
    return figure


def draw_lines(axes: Axes, *lines: str) -> None:
    """Lines of text instead of a plot."""
    axes.axis("off")
    for place, line in enumerate(lines):
        shown = line if len(line) <= LONGEST else line[:LONGEST] + "…"
        axes.text(0, 0.9 - 0.55 * place, shown, va="top", fontsize=9)


def draw_tokens(axes: Axes, tokens: list[tuple[str, bool]]) -> None:
    """Boxes with the tokens' texts, in two lines."""
    half = SHOWN // 2
    axes.axis("off")
    axes.set(xlim=(0, half), ylim=(-2, 0))
    for place, (text, learn) in enumerate(tokens):
        x, y = place % half, -1 - place // half
        axes.add_patch(
            Rectangle(
                (x + 0.04, y + 0.12), 0.92, 0.76, facecolor=LEARNT if learn else FROZEN, edgecolor="none"
            )
        )
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=8 if len(text) < 4 else 4.5)


def draw_losses(axes: Axes, way: FactWay) -> None:
    """Two bars a token: before and after training."""
    texts = [text for text, learn in way.tokens if learn]
    places = range(len(way.before))
    axes.bar([x - 0.2 for x in places], way.before, 0.4, color=GREY, label="基座")
    axes.bar([x + 0.2 for x in places], way.after, 0.4, color=BLUE, label="训练之后（常常低得看不见）")
    axes.set_xticks(list(places), texts[: len(places)])
    axes.set(ylabel="损失（nats）")
    axes.legend(frameon=False, fontsize=8)


def draw_update(axes: Axes, way: FactWay) -> None:
    """The norms of the update, modules by layers."""
    layers = 1 + max(layer for layer, _ in way.sizes)
    modules = [name for name in LINEAR_NAMES if any(name == own for _, own in way.sizes)]
    grid = [[way.sizes.get((layer, name), 0.0) for layer in range(layers)] for name in modules]
    picture = axes.imshow(grid, aspect="auto", cmap="Oranges", vmin=0)
    axes.set_xticks(range(layers), [f"第 {layer + 1} 层" for layer in range(layers)])
    axes.set_yticks(range(len(modules)), [name.removesuffix("_proj") for name in modules])
    axes.grid(False)
    axes.figure.colorbar(picture, ax=axes, label="增量的大小")
