import dataclasses

import pandas as pd
import pytest

from minimind_core.conversations.mixing import write_dataset
from minimind_core.training.runs import prepare_run
from minimind_core.ui import live_plot, widgets


@pytest.fixture
def panel(workbook) -> widgets.ChatPanel:
    """A panel on the tiny base."""
    return widgets.ChatPanel(workbook, ["base"], ["你是谁？", "<b>你好</b>"])


def test_send_button_answers_and_clears_the_box(panel):
    panel.box.value = " 《江南》是谁唱的？ "
    panel.send.click()
    assert panel.turns[0][0] == "《江南》是谁唱的？" and panel.turns[0][1]
    assert "《江南》是谁唱的？" in panel.log.value and panel.box.value == ""


def test_empty_questions_are_ignored(panel):
    panel.send.click()
    assert panel.turns == [] and panel.log.value == ""


def test_preset_button_asks_its_question_and_html_is_escaped(panel):
    panel.presets[1].click()
    assert panel.turns[0][0] == "<b>你好</b>" and "&lt;b&gt;" in panel.log.value and "<b>你好" not in panel.log.value


def test_saved_panel_shows_its_text_without_widgets(panel):
    panel.ask_all(["你是谁？"])
    bundle = panel.panel()._repr_mimebundle_()
    assert "你是谁？" in bundle["text/html"] and "application/vnd.jupyter.widget-view+json" in bundle


def test_training_draws_saves_and_reports(workbook, capsys):
    write_dataset(workbook)
    run = prepare_run(workbook, "plot", "smoke")
    live_plot.train_with_plot(run)
    out = capsys.readouterr().out
    assert "训练损失" in out and "验证损失" in out and "曲线已保存到 figures/loss.png" in out
    assert (workbook.figures / "loss.png").stat().st_size > 5000 and (workbook.figures / "loss.svg").exists()


def test_stopping_keeps_what_was_learnt_and_resuming_finishes(workbook, monkeypatch, capsys):
    write_dataset(workbook)
    monkeypatch.setattr(live_plot.LivePlot, "update", _interrupt_after(2))
    live_plot.train_with_plot(prepare_run(workbook, "stopped", "smoke"))
    assert "已停止" in capsys.readouterr().out
    monkeypatch.undo()
    run = prepare_run(workbook, "stopped", "smoke", resume=True)
    assert next(iter(run.train())).step == 3


def _interrupt_after(count: int):
    calls = []

    def update(self, record):
        calls.append(record)
        if len(calls) == count:
            raise KeyboardInterrupt

    return update


def test_tables(workbook):
    score = {"right": 1, "n": 2, "share": 0.5, "low": 0.1, "high": 0.9}
    table = widgets.score_table({"main": {"scores": {"identity": score}}}, {"identity": "身份"})
    assert table.loc["身份", "main"].startswith("50.0%（1/2")
    details = {"details": {"music/a": score, "music/b": {**score, "share": 0.2}, "other/c": score}}
    assert list(widgets.detail_table(details, "music").index) == ["b", "a"]
    answers = [{"question": "问", "expected": "答", "answer": "答", "right": True}]
    assert isinstance(widgets.answer_table(answers), pd.DataFrame) and widgets.answer_table([]).empty
    assert "return self.base(x)" in widgets.show_source(widgets.add_lora.__globals__["LoraLinear"]).data
    assert dataclasses.is_dataclass(live_plot.StepRecord)
