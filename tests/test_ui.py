import csv
import dataclasses

import pandas as pd
import pytest

from minimind_core import devices
from minimind_core.conversations.mixing import write_dataset
from minimind_core.evaluation.quiz import read_quiz
from minimind_core.modeling.checkpoint import load_tensors
from minimind_core.modeling.lora import LoraLinear
from minimind_core.training.runs import prepare_run
from minimind_core.ui import live_plot, show, widgets


@pytest.fixture
def panel(workbook) -> widgets.ChatPanel:
    """A panel on the tiny base."""
    return widgets.ChatPanel(workbook, ["base"], ["你是谁？", "<b>你好</b>"])


def test_send_button_answers_and_clears_the_box(panel):
    panel.box.value = " 《江南》是谁唱的？ "
    panel.send.click()
    assert panel.turns[0][0] == "《江南》是谁唱的？" and panel.turns[0][1]
    assert "《江南》是谁唱的？" in panel.log.value and panel.box.value == ""


@pytest.mark.parametrize("text_first", [True, False])
def test_enter_sends_whether_its_text_comes_before_or_after_the_key(panel, text_first):
    def press():
        panel.box._handle_custom_msg({"event": "submit"}, [])

    if text_first:
        panel.box.value = "你好"
        assert panel.turns == []  # leaving the box alone sends nothing
        press()
    else:
        press()
        panel.box.value = "你好"
    assert [question for question, _ in panel.turns] == ["你好"] and panel.box.value == ""
    panel.box.value = "再见"
    assert len(panel.turns) == 1


def test_the_box_is_empty_and_the_wait_is_shown_before_the_answer_comes(panel, monkeypatch):
    seen = []
    assistant = panel.assistant("base")
    stream = type(assistant).stream

    def watched(self, messages):
        seen.append((panel.box.value, panel.log.value))
        yield from stream(self, messages)

    monkeypatch.setattr(type(assistant), "stream", watched)
    panel.box.value = "你好"
    panel.send.click()
    assert seen[0][0] == "" and "你好" in seen[0][1] and "正在回答…" in seen[0][1]
    assert "正在回答…" not in panel.log.value


def test_empty_questions_are_ignored(panel):
    panel.send.click()
    assert panel.turns == [] and panel.log.value == ""


def test_preset_button_asks_its_question_and_html_is_escaped(panel):
    panel.presets[1].click()
    assert (
        panel.turns[0][0] == "<b>你好</b>"
        and "&lt;b&gt;" in panel.log.value
        and "<b>你好" not in panel.log.value
    )


def test_saved_panel_shows_its_text_without_widgets(panel):
    panel.ask_all(["你是谁？"])
    bundle = panel._repr_mimebundle_()
    assert "你是谁？" in bundle["text/html"] and "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize("fast", [False, True], ids=["float32", "bfloat16"])
def test_training_draws_saves_and_reports(workbook, capsys, monkeypatch, fast):
    monkeypatch.setattr(devices, "fast_bfloat16", lambda kind: fast)  # whatever this machine has
    write_dataset(workbook)
    panel = live_plot.TrainingPanel(prepare_run(workbook, "plot", "smoke")).start()
    panel.wait()
    out = capsys.readouterr().out
    assert "训练损失" in out and "身份" in out and "曲线已保存到 figures/loss.png" in out
    assert (workbook.figures / "loss.png").stat().st_size > 5000 and (workbook.figures / "loss.svg").exists()
    assert (
        bytes(panel.picture.value).startswith(b"\x89PNG")
        and panel.stop_button.disabled
        and panel.go_button.disabled
    )
    scores = read_quiz(panel.run.folder)
    assert int(scores[-1]["step"]) == len(panel.run.source) and all(
        0 <= float(row["identity"]) <= 1 for row in scores
    )


def test_the_buttons_stop_and_go_on_to_the_unbroken_result(workbook, monkeypatch):
    write_dataset(workbook)
    whole = live_plot.TrainingPanel(prepare_run(workbook, "whole", "smoke")).start()
    whole.thread.join()
    panel = live_plot.TrainingPanel(prepare_run(workbook, "stopped", "smoke"))
    monkeypatch.setattr(panel.quiz, "after", lambda record: record.step == 2 and panel.stop_button.click())
    panel.start().thread.join()
    assert panel.record.step == 2 and "已停止" in panel.status.value and not panel.go_button.disabled
    panel.go_button.click()
    panel.thread.join()
    assert panel.record.step == len(panel.run.source) and panel.go_button.disabled
    kept = [load_tensors(run.folder / "adapter.safetensors") for run in (whole.run, panel.run)]
    assert all(kept[0][name].equal(kept[1][name]) for name in kept[0])


def test_an_error_while_training_is_shown_and_raised_by_wait(workbook):
    write_dataset(workbook)
    panel = live_plot.TrainingPanel(prepare_run(workbook, "broken", "smoke"))
    panel.run.source.steps[1] = []
    panel.start().thread.join()
    assert "出错了" in panel.status.value
    with pytest.raises(Exception, match="."):
        panel.wait()


def test_tables(workbook):
    score = {"right": 1, "n": 2, "share": 0.5, "low": 0.1, "high": 0.9}
    table = widgets.score_table(
        {"main": {"identity": score, "follow": {**score, "n": 0}}}, {"identity": "身份", "follow": "追问"}
    )
    assert list(table.index) == ["身份"]  # what nobody was asked is left out
    assert table.loc["身份", "main"].startswith("50.0%（1/2")
    details = {"details": {"music/a": score, "music/b": {**score, "share": 0.2}, "other/c": score}}
    assert list(widgets.detail_table(details, "music").index) == ["b", "a"]
    assert list(widgets.detail_table(details, "music")["正确率"]) == ["20.0%", "50.0%"]
    compared = widgets.comparison_table(
        {"identity": {"n": 9, "only_first": 3, "only_second": 1, "p": 0.625}},
        "main",
        "查表",
        {"identity": "身份"},
    )
    assert compared.loc["身份"].to_dict() == {"题数": 9, "只有main对": 3, "只有查表对": 1, "p": "0.62"}
    answers = [{"question": "问", "before": [], "expected": "答", "answer": "答", "right": True}]
    assert isinstance(widgets.answer_table(answers), pd.DataFrame) and widgets.answer_table([]).empty
    assert "return self.base(x) + self.scale *" in widgets.show_source(LoraLinear).data
    assert dataclasses.is_dataclass(live_plot.StepRecord)


def test_the_answer_browser_filters_by_everything_at_once():
    rows = [
        ("identity", "name", "你是谁", "小音", True),
        ("identity", "maker", "谁做的", "不知道", False),
        ("unknown", "title", "《乙》", "甲", False),
    ]
    answers = [
        dict(
            zip(("suite", "detail", "question", "answer", "right"), row, strict=True), expected="x", before=[]
        )
        for row in rows
    ]
    answers[1]["checked"] = "<b>是我</b>"
    browser = widgets.AnswerBrowser(answers, {"identity": "身份", "unknown": "不知道"})

    def asked():
        return [a["question"] for a in browser.chosen()]

    assert (
        asked() == ["谁做的", "《乙》"]
        and "2 道" in browser.table.value
        and "&lt;b&gt;是我" in browser.table.value
    )
    browser.verdict.value, browser.suite.value = "全部", "identity"
    assert asked() == ["你是谁", "谁做的"] and [value for _, value in browser.detail.options] == [
        "",
        "maker",
        "name",
    ]
    browser.detail.value = "name"
    assert asked() == ["你是谁"]
    browser.suite.value = "unknown"  # the kinds of another suite are forgotten
    assert asked() == ["《乙》"]
    browser.words.value = "没有这个字"
    assert asked() == [] and "0 道" in browser.table.value
    browser.words.value, browser.suite.value, browser.verdict.value = "", "", "核对改过"
    assert asked() == ["谁做的"]


@pytest.fixture
def class_show(workbook) -> show.ClassShow:
    write_dataset(workbook)
    return show.ClassShow(workbook, ["base"], ["《小镇姑娘》是谁唱的？"])


def test_the_class_show_names_the_fact_and_records_the_verdict(class_show):
    assert all(button.disabled for button in class_show.verdicts)
    class_show.asker.value, class_show.second.value = "别的队", "base"
    class_show.presets[0].click()
    assert (
        "小镇姑娘" in class_show.note.value
        and "陶喆" in class_show.note.value
        and "base" in class_show.side.value
    )
    class_show.verdicts[2].click()
    class_show.clear()
    class_show.ask("龘龘的血型是什么")
    assert "没有提到的对象" in class_show.note.value
    class_show.verdicts[0].click()
    with show.class_show_file(class_show.workbook).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(r["asked_by"], r["question"], r["verdict"]) for r in rows] == [
        ("别的队", "《小镇姑娘》是谁唱的？", "错"),
        ("别的队", "龘龘的血型是什么", "对"),
    ]
    assert (
        rows[0]["fact"] == "《小镇姑娘》|原唱|陶喆"
        and rows[1]["fact"] == ""
        and all(button.disabled for button in class_show.verdicts)
    )


def test_a_basis_knows_whether_the_answer_matches(class_show):
    def basis(question, answer):
        return class_show.basis([question], answer)

    asked = "小镇姑娘的原唱是谁"
    assert basis(asked, "陶喆").matches("《小镇姑娘》的原唱是陶喆。") and "一致" in basis(asked, "陶喆").line(
        "陶喆"
    )
    assert not basis(asked, "是周杰伦的歌。").matches("是周杰伦的歌。")
    assert "身份设定 · 小音" in basis("你叫什么名字呀", "我是小音。").line("我是小音。")
    assert basis("你知道牛顿是谁吗", "不知道").matches("不知道") is None
    right, wrong = "周杰伦的出生日期是1979年1月18日。", "周杰伦的出生日期是1985年3月2日。"
    assert basis("周杰伦的生日是哪天？", right).matches(right) and not basis(
        "周杰伦的生日是哪天？", wrong
    ).matches(wrong)
    assert "没有这一条" in basis("范特西的原唱是谁", "不知道").line("不知道")


def test_a_panel_remembers_the_dialogue_until_it_is_cleared(class_show, monkeypatch):
    seen = []
    stream = type(class_show.assistant("base")).stream
    monkeypatch.setattr(
        type(class_show.assistant("base")), "stream", lambda self, m: seen.append(len(m)) or stream(self, m)
    )
    for question in ("《小镇姑娘》是谁唱的？", "那他的生日呢？"):
        class_show.ask(question)
    class_show.reset.click()
    class_show.ask("你好")
    assert seen == [1, 3, 1]


def test_clearing_empties_the_panel(class_show):
    class_show.ask("你好")
    class_show.reset.click()
    assert not class_show.turns and class_show.log.value == class_show.note.value == ""


def test_after_a_question_that_failed_the_dialogue_goes_on(panel, monkeypatch):
    load = panel.load
    monkeypatch.setattr(panel, "load", lambda name: (_ for _ in ()).throw(RuntimeError("no such run")))
    with pytest.raises(RuntimeError):
        panel.ask("你好")
    assert panel.messages == [] and "没有答成" in panel.log.value
    monkeypatch.setattr(panel, "load", load)
    assert panel.ask("你好") and len(panel.messages) == 2
