"""A loss curve that grows while a run trains, and stays in the saved notebook."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from matplotlib import pyplot as plt

from minimind_core.reporting.figures import loss_figure, save_figure
from minimind_core.training.runs import Run, read_metrics
from minimind_core.training.trainer import StepRecord

REDRAW_SECONDS = 4.0  # drawing takes a quarter of a second of the processor that is training


def describe(record: StepRecord) -> str:
    """One line of progress."""
    left = record.seconds / record.step * (record.total_steps - record.step)
    valid = f"  验证损失 {record.valid_loss:.3f}" if record.valid_loss is not None else ""
    return (
        f"第 {record.step}/{record.total_steps} 步  训练损失 {record.mean_loss:.3f}{valid}  "
        f"学习率 {record.learning_rate:.1e}  {record.tokens_per_second:.0f} 词元/秒  剩余约 {left:.0f} 秒"
    )


class LivePlot:
    """Redraws the figure in place, every few seconds; outside a notebook nothing is drawn."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.handle: Any = None
        self.drawn = 0.0

    def update(self, record: StepRecord) -> None:
        """Add a step."""
        self.rows.append(asdict(record))
        if time.monotonic() - self.drawn > REDRAW_SECONDS or record.step == record.total_steps:
            self.draw()

    def draw(self) -> None:
        """Show the curve so far."""
        from IPython.display import display

        figure = loss_figure(self.rows)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)
        self.drawn = time.monotonic()


def train_with_plot(run: Run, lines: int = 12) -> None:
    """Train a run with a live curve and about `lines` lines of text; ■ stops it and keeps what was learnt."""
    plot = LivePlot()
    every = max(1, len(run.source) // lines)
    try:
        for record in run.train():
            plot.update(record)
            if record.step % every == 0 or record.step == record.total_steps:
                print(describe(record), flush=True)
    except KeyboardInterrupt:
        print("已停止：进度已保存，可用 resume=True 继续。")
    if plot.rows:
        path = save_figure(loss_figure(read_metrics(run.folder / "metrics.csv")), run.workbook, "loss")
        print(f"曲线已保存到 {path.relative_to(run.workbook.root).as_posix()}")
