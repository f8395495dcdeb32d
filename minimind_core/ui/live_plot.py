"""Training that can be watched and stopped.

A curve that grows, scores that rise, and buttons to stop and go on.
"""

from __future__ import annotations

import io
import threading
import time
from dataclasses import asdict
from typing import Any

import ipywidgets as widgets
from IPython.display import Image, display

from minimind_core.evaluation.quiz import Quiz, read_quiz
from minimind_core.modeling.fast import release_helpers
from minimind_core.reporting.figures import loss_figure, save_figure
from minimind_core.training.run_files import read_metrics
from minimind_core.training.runs import Run
from minimind_core.training.trainer import StepRecord
from minimind_core.ui.widgets import Panel

REDRAW_SECONDS = 8.0  # drawing takes a quarter of a second of the processor that is training
LINES = 12  # of text progress


def describe(record: StepRecord) -> str:
    """One line of progress."""
    left = record.seconds / record.step * (record.total_steps - record.step)
    valid = f"  验证损失 {record.valid_loss:.3f}" if record.valid_loss is not None else ""
    return (
        f"第 {record.step}/{record.total_steps} 步  训练损失 {record.mean_loss:.3f}{valid}  "
        f"学习率 {record.learning_rate:.1e}  {record.tokens_per_second:.0f} 词元/秒  剩余约 {left:.0f} 秒"
    )


class TrainingPanel(Panel):
    """Trains a run in a thread of its own, so that the buttons answer.

    `wait` joins it and shows the final curve.

    While a cell is running, Jupyter hands no clicks to the kernel: the buttons work until `wait` is called,
    from then on ■ does.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.quiz = run, Quiz(run)
        self.rows: list[dict[str, Any]] = (
            [dict(row) for row in read_metrics(run.folder / "metrics.csv")] if run.checkpoint.exists() else []
        )
        self.record: StepRecord | None = None
        self.problem: BaseException | None = None
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None
        self.picture, self.status = (
            widgets.Image(format="png", layout=widgets.Layout(max_width="100%")),
            widgets.HTML("还没有开始"),
        )
        self.stop_button = widgets.Button(
            description="停止", button_style="danger", icon="stop", disabled=True
        )
        self.go_button = widgets.Button(description="继续", icon="play", disabled=True)
        self.stop_button.on_click(lambda _: self.stopping.set())
        self.go_button.on_click(lambda _: self.start())
        self.view = widgets.VBox(
            [widgets.HBox([self.stop_button, self.go_button]), self.status, self.picture]
        )

    def start(self) -> TrainingPanel:
        """Begin, or go on from the checkpoint."""
        if self.thread is None or not self.thread.is_alive():
            self.stopping.clear()
            self.problem = None
            self.stop_button.disabled, self.go_button.disabled = False, True
            release_helpers()
            self.thread = threading.Thread(target=self._work, daemon=True)
            self.thread.start()
        return self

    def _work(self) -> None:
        """Train to the end or until told to stop; the checkpoint is written either way."""
        drawn, records = 0.0, self.run.train()
        try:
            for record in records:
                self.record = record
                self.rows.append(asdict(record))
                self.quiz.after(record)
                self.status.value = describe(record) + self.quiz.line()
                if self.stopping.is_set():
                    break
                if time.monotonic() - drawn > REDRAW_SECONDS:
                    self.draw()
                    drawn = time.monotonic()
        except Exception as error:  # shown here and raised again by wait: a thread has nobody to catch it
            self.problem = error
            self.status.value = f"出错了：{error}"
        finally:
            records.close()
            self.draw()
            self.stop_button.disabled, self.go_button.disabled = True, not self.run.checkpoint.exists()
            if self.run.checkpoint.exists() and self.problem is None:
                self.status.value += "<br>已停止，进度已保存；按“继续”接着训练。"

    def draw(self) -> None:
        """Put the curve so far into the picture."""
        if self.rows:
            figure, buffer = loss_figure(self.rows, self.quiz.scores), io.BytesIO()
            figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
            self.picture.value = buffer.getvalue()

    def wait(self) -> None:
        """Print progress until training ends.

        Then show the curve and save it to figures/. ■ stops and keeps what was learnt.
        """
        shown, every = 0, max(1, len(self.run.source) // LINES)
        try:
            while self.thread is not None and self.thread.is_alive():
                self.thread.join(0.2)
                if self.record and self.record.step // every > shown:
                    shown = self.record.step // every
                    print(describe(self.record) + self.quiz.line(), flush=True)
        except KeyboardInterrupt:
            self.stopping.set()
            self.thread.join()
            print("已停止：进度已保存；按上面的“继续”，或把 RESUME 改成 True 再运行。")
        if self.problem is not None:
            raise self.problem
        rows = read_metrics(self.run.folder / "metrics.csv")
        if rows:
            path = save_figure(loss_figure(rows, read_quiz(self.run.folder)), self.run.workbook, "loss")
            # a Figure shows as a picture only once the inline backend is set up
            display(Image(filename=path, width=700))
            print(f"曲线已保存到 {path.relative_to(self.run.workbook.root).as_posix()}")

    def static(self) -> str:
        """What stands in a saved notebook."""
        return "<p>训练面板：运行这一格才会出现停止、继续按钮和实时曲线；保存下来的曲线在下一格。</p>"
