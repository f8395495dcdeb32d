"""One way in: the claim check on two topics, and every surface gives the same answer to the same dialogue."""

import io
import json
import shutil
import subprocess
import sys

import pytest
from conftest import PROJECT

from minimind_core.cli import main
from minimind_core.collection.facts import Fact, write_facts
from minimind_core.conversations.mixing import write_dataset
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.claims import claim_check
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer
from minimind_core.training.runs import prepare_run
from minimind_core.ui.show import ClassShow
from minimind_core.ui.widgets import ChatPanel

TURNS = ["《小镇姑娘》是谁唱的？", "那他的生日呢？"]


def ask(*texts):
    """A dialogue; the texts belong to user and assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def check_of(workbook, rows):
    write_facts(workbook.facts, [Fact(*row, "https://example.org", "2026-01-01") for row in rows])
    return claim_check(workbook)


SONGS = [
    ("《江南》", "原唱", "林俊杰"),
    ("《就是我》", "原唱", "林俊杰"),
    ("林俊杰", "英文名", "JJ Lin"),
    ("林俊杰", "出生地", "新加坡"),
    ("陶喆", "出道年份", "1997年"),
]
DUETS = [("《晚风》", "合唱者", "王明和孙丽"), ("王明", "出生地", "北京"), ("孙丽", "出生地", "上海")]
CANTEENS = [("二食堂", "负责人", "李秀兰"), ("二食堂", "开门时间", "7:00"), ("一食堂", "负责人", "王建国")]


@pytest.mark.parametrize(("rows", "dialogue", "answer", "stands"), [
    (SONGS, ask("江南谁唱的"), "《江南》的原唱是林俊杰。", True),
    (SONGS, ask("江南谁唱的"), "《江南》的原唱是陶喆。", True),  # values are not looked up
    (SONGS, ask("江北谁唱的"), "《江南》的原唱是林俊杰。", False),  # the dialogue names no such subject
    (SONGS, ask("陶喆的出生地"), "陶喆的出生地是香港。", False),  # the table has no such fact
    (SONGS, ask("就是我是谁的"), "《就是我》的原唱是林俊杰。", True),  # a form's words inside a title
    (SONGS, ask("林俊杰唱过什么"), "《江南》的原唱是林俊杰。", True),  # from the value to the subject
    (SONGS, ask("JJ Lin生在哪"), "林俊杰的出生地是新加坡。", True),  # another of its names
    (SONGS, ask("江南谁唱的", "《江南》的原唱是林俊杰。", "他生在哪"), "林俊杰的出生地是新加坡。", True),  # named before
    (DUETS, ask("孙丽那首跟王明同唱的"), "王明和孙丽是《晚风》的合唱者。", True),  # a pair in another order
    (DUETS, ask("王明那首合唱"), "王明和孙丽是《晚风》的合唱者。", False),
    (SONGS, ask("1997那年谁出道"), "陶喆的出道年份是1997年。", True),
    (SONGS, ask("今天好累"), "早点休息。", True),
    (CANTEENS, ask("二食堂谁管"), "二食堂的负责人是李秀兰。", True),
    (CANTEENS, ask("三食堂谁管"), "二食堂的负责人是李秀兰。", False),
    (CANTEENS, ask("一食堂几点开门"), "一食堂的开门时间是7:00。", False),
])  # fmt: skip
def test_a_claim_stands_if_the_table_could_hold_it_and_the_dialogue_asks(
    workbook, rows, dialogue, answer, stands
):
    check = check_of(workbook, rows)
    assert check.stands(dialogue, answer) is stands
    given = check.apply(dialogue, Answer(answer, 3, True))
    assert (given.text, given.own) == ((answer, None) if stands else ("抱歉，这个我不知道。", answer))


def test_a_withdrawn_answer_is_streamed_and_then_replaced(model, tokenizer, workbook):
    decoding = Decoding(max_new_tokens=4)
    (own,) = Assistant(model, tokenizer, decoding).answer_all([ask("你好")])
    check = claim_check(workbook)
    for forms, withdrawn in (({}, False), ({"颜色": frozenset([own.text[:1] + "{s}{v}"])}, True)):
        strict = type(check)(check.fallback, forms, {"颜色": frozenset()}, {})
        shown = list(Assistant(model, tokenizer, decoding, strict).stream(ask("你好")))
        assert shown[0].own is None and (shown[-1].own is not None) is withdrawn
        assert shown[-1].text == (check.fallback if withdrawn else own.text)


def test_a_dialogue_is_led_on_with_the_models_own_answers(model, tokenizer):
    assistant = Assistant(model, tokenizer, Decoding(max_new_tokens=6))
    led = assistant.converse([["你好", "再见"], ["早"]])
    first = assistant.answer(ask("你好"))
    assert [len(answers) for answers in led] == [2, 1] and led[0][0].text == first.text
    assert led[0][1].text == assistant.answer(ask("你好", first.text, "再见")).text


@pytest.fixture
def trained(workbook):
    """A project whose tiny run has learned something, so that its answers differ."""
    write_dataset(workbook)
    list(prepare_run(workbook, "main", "smoke").train())
    return workbook


def test_every_surface_gives_the_same_answers_to_a_dialogue(trained, capsys, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1")
    # in float32: a hardly trained model's next tokens are so close that bfloat16's rounding decides
    monkeypatch.setattr("minimind_core.modeling.fast.fast_bfloat16", lambda kind: False)
    decoding = Decoding(max_new_tokens=128)
    assistant = Assistant.load(trained, "main", decoding)
    expected = [answers.text for answers in assistant.converse([TURNS])[0]]
    alone = assistant.answer(ask(TURNS[1])).text
    said = {}

    for name, panel in (
        ("panel", ChatPanel(trained, ["main"], [])),
        ("class show", ClassShow(trained, ["main"], [])),
    ):
        monkeypatch.setattr(panel, "assistant", lambda run, panel=panel: assistant)
        for question in TURNS:
            panel.ask(question)
        said[name] = [answer for _, answer in panel.turns]

    monkeypatch.setattr("minimind_core.cli.models.Decoding", lambda **settings: decoding)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TURNS) + "\n\n"))
    assert main(["--root", str(trained.root), "chat"]) == 0
    out = capsys.readouterr().out
    said["chat"] = [
        line.split("改说）")[-1].removeprefix("答：")
        for line in out.replace("问：", "\n").split("\n")
        if line.startswith(("答：", "　"))
    ]
    said["chat"] = [text for text in said["chat"] if text in expected][: len(expected)]

    lines = [{"conversations": ask(TURNS[0])}, {"conversations": ask(TURNS[0], expected[0], TURNS[1])}]
    (trained.root / "q.jsonl").write_text(
        "\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8"
    )
    assert (
        main(
            [
                "--root",
                str(trained.root),
                "ask",
                "--questions",
                str(trained.root / "q.jsonl"),
                "--out",
                str(trained.root / "a.jsonl"),
            ]
        )
        == 0
    )
    rows = (trained.root / "a.jsonl").read_text(encoding="utf-8").splitlines()
    said["ask"] = [json.loads(row)["answer"] for row in rows]

    shutil.copytree(PROJECT / "scripts", trained.root / "scripts")
    page = testing.AppTest.from_file(str(trained.root / "scripts" / "web_demo.py"), default_timeout=60).run()
    page.slider[2].set_value(128)
    for question in TURNS:
        page.chat_input[0].set_value(question).run()
    said["streamlit"] = [m.markdown[0].value for m in page.chat_message if m.name == "assistant"]

    assert said == dict.fromkeys(said, expected)
    assert alone is not None


@pytest.mark.slow
def test_the_course_command_answers_like_the_assistant(trained):
    shutil.copytree(PROJECT / "scripts", trained.root / "scripts")
    command = [
        sys.executable,
        "train_lora.py",
        "--data_path",
        "../dataset/train.jsonl",
        "--lora_name",
        "lora_x",
    ]
    subprocess.run(command, cwd=trained.root / "scripts", check=True, capture_output=True)
    command = [sys.executable, "eval_model.py", "--lora_name", "lora_x", "--chat"]
    result = subprocess.run(
        command,
        cwd=trained.root / "scripts",
        input="\n".join(TURNS) + "\n\n",
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    expected = [
        a.text for a in Assistant.load(trained, "lora_x", Decoding(max_new_tokens=64)).converse([TURNS])[0]
    ]
    assert all(f"答：{text}" in result.stdout for text in expected)


def test_another_way_of_decoding_keeps_the_check(model, tokenizer, workbook):
    assistant = Assistant(model, tokenizer, check=claim_check(workbook))
    again = assistant.using(Decoding(max_new_tokens=3))
    assert again.check is assistant.check and again.decoding.max_new_tokens == 3
    assert again.unchecked().check is None and again.unchecked().decoding is again.decoding
