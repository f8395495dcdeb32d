"""Draw what the benchmarks found: training speed, its cost against rows, the server under load.

    python benchmarks/figure.py

Reads report/results/benchmark_*.json and writes figures/speed.png and .svg.
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.axes import Axes

from minimind_core.config import load_workbook
from minimind_core.reporting.figures import BLUE, GREEN, GREY, ORANGE, blank, save_figure

BARS = {
    "stock": ("原版设置", GREY),
    "trl_packed": ("TRL + PEFT", ORANGE),
    "ours_q_o_rank8": ("本项目\nq、o 秩 8", BLUE),
    "ours_default": ("本项目\n默认", BLUE),
}


def read(folder: Path, name: str) -> dict:
    """A benchmark's findings."""
    return json.loads((folder / f"benchmark_{name}.json").read_text(encoding="utf-8"))


def draw_training(axes: Axes, found: dict) -> None:
    """Useful tokens a second of each contender, on a logarithmic scale."""
    shown = {name: bar for name, bar in BARS.items() if "tokens_per_second" in found.get(name, {})}
    speeds = [found[name]["tokens_per_second"] for name in shown]
    bars = axes.bar([label for label, _ in shown.values()], speeds, color=[c for _, c in shown.values()])
    axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], fontsize=8)
    axes.set(yscale="log", ylabel="每秒词元（对数刻度）", title="训练")
    axes.tick_params(axis="x", labelsize=8)


def draw_rows(axes: Axes, found: dict) -> None:
    """Seconds of preparation, and peak memory, against rows."""
    rows = [int(count) for count in found]
    axes.plot(rows, [found[str(r)]["prepare_seconds"] for r in rows], "o-", color=BLUE, label="准备（秒）")
    axes.set(
        xscale="log", yscale="log", xlabel="训练文件的行数", ylabel="准备（秒）", title="行数多了要付什么"
    )
    right = axes.twinx()
    peaks = [found[str(r)]["peak_mib"] for r in rows]
    right.plot(rows, peaks, "s--", color=ORANGE)
    right.set(ylabel="峰值内存 MiB（橙色）", ylim=(0, 1.2 * max(peaks)))
    right.grid(False)


def draw_server(axes: Axes, found: dict) -> None:
    """Memory of the server over the seconds of the load."""
    axes.plot(*zip(*found["memory_mib"], strict=True), color=GREEN)
    wait = found["wait_seconds"]
    speed = found["answers_per_second"]
    title = f"{found['clients']} 个客户端：每秒 {speed:.0f} 个回答，中位等 {wait['p50']:.2f} 秒"
    axes.set(xlabel="秒", ylabel="服务的内存 MiB", ylim=(0, None))
    axes.set_title(title, fontsize=9)


def main() -> None:
    """Three panels side by side."""
    workbook = load_workbook()
    figure, axes = blank(1, 3, figsize=(12, 3.4), layout="constrained")
    draw_training(axes[0], read(workbook.results, "training"))
    draw_rows(axes[1], read(workbook.results, "rows"))
    draw_server(axes[2], read(workbook.results, "server"))
    print(save_figure(figure, workbook, "speed"))


if __name__ == "__main__":
    main()
