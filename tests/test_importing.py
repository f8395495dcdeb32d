"""Files as people bring them: every format, encoding and container, and what is said of the rest."""

import json
import zipfile

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_core.cli import main
from minimind_core.conversations import doctor, formats
from minimind_core.conversations.importing import import_file, training_rows
from minimind_core.conversations.repairing import convert_file
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.errors import WorkbookError

PAIRS = [(f"第{n}个问题？", f"第{n}个回答。") for n in range(3)]


def chat(pairs, user="user", assistant="assistant", role="role", content="content", system=None):
    """Turns of a dialogue as a chat program writes them."""
    turns = [{role: "system", content: system}] if system else []
    for question, answer in pairs:
        turns += [{role: user, content: question}, {role: assistant, content: answer}]
    return turns


# How each format writes a dialogue of some pairs, with an optional system text.
WRITERS = {
    "conversations": lambda pairs, system: {"conversations": chat(pairs, system=system)},
    "messages": lambda pairs, system: {"messages": chat(pairs, system=system)},
    "ShareGPT": lambda pairs, system: {
        "id": "x1", "conversations": chat(pairs, "human", "gpt", "from", "value"), "system": system or "", "tools": ""
    },
    "Alpaca": lambda pairs, system: {
        "instruction": pairs[-1][0], "input": "", "output": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "query/response": lambda pairs, system: {
        "query": pairs[-1][0], "response": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "question/answer": lambda pairs, system: {
        "question": pairs[-1][0], "answer": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "prompt/completion": lambda pairs, system: {
        "prompt": chat(pairs, system=system)[:-1], "completion": chat(pairs)[-1:]
    },
    "prompt/response": lambda pairs, system: {
        "prompt": pairs[-1][0], "response": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "instruction/response": lambda pairs, system: {
        "instruction": pairs[-1][0], "response": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "input/output": lambda pairs, system: {
        "input": pairs[-1][0], "output": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "user/assistant": lambda pairs, system: {
        "user": pairs[-1][0], "assistant": pairs[-1][1], "history": pairs[:-1], "system": system
    },
    "XTuner": lambda pairs, system: {
        "conversation": [
            {"system": system if n == 0 else "", "input": q, "output": a} for n, (q, a) in enumerate(pairs)
        ]
    },
    "偏好数据（DPO）": lambda pairs, system: {
        "prompt": chat(pairs, system=system)[:-1], "chosen": chat(pairs)[-1:], "rejected": chat(PAIRS)[-1:]
    },
}  # fmt: skip

# no lone surrogates, and no words that mean something to the importer
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and "<" not in text
)
dialogues = st.tuples(
    st.lists(st.tuples(words, words), min_size=1, max_size=3),
    st.none() | words.filter(lambda text: text.strip()),
)


def test_every_format_has_a_writer_here():
    assert set(WRITERS) == set(formats.FORMATS)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=25)
@given(
    rows=st.lists(dialogues, min_size=1, max_size=4), array=st.booleans(), indent=st.sampled_from([None, 2])
)
def test_what_a_format_writes_is_read_again(tmp_path_factory, name, rows, array, indent):
    path = tmp_path_factory.mktemp("format") / "rows.json"
    records = [WRITERS[name](pairs, system) for pairs, system in rows]
    if array:
        text = json.dumps(records, ensure_ascii=False, indent=indent)
    else:
        text = "\n".join(json.dumps(record, ensure_ascii=False, indent=indent) for record in records)
    path.write_bytes(text.encode())
    imported = import_file(path)
    assert not imported.problems and set(imported.formats) == {name}
    found = [[(turn.role, turn.content) for turn in row.conversation.conversations] for row in imported.rows]
    assert found == [
        [(turn["role"], turn["content"]) for turn in chat(pairs, system=system)] for pairs, system in rows
    ]


def test_a_new_format_is_one_entry(tmp_path, monkeypatch):
    entry = formats.Format(formats.has("frage", "antwort"), formats.pair("frage", "antwort"))
    monkeypatch.setitem(formats.FORMATS, "Frage/Antwort", entry)
    path = tmp_path / "a.jsonl"
    path.write_text('{"frage": "问", "antwort": "答"}', encoding="utf-8")
    assert import_file(path).rows[0].conversation.answer == "答"


JSONL = "".join(json.dumps({"conversations": chat([pair])}, ensure_ascii=False) + "\n" for pair in PAIRS)
ARRAY = json.dumps([{"conversations": chat([pair])} for pair in PAIRS], ensure_ascii=False, indent=1)


@pytest.mark.parametrize(("name", "raw", "said"), [
    ("gbk.jsonl", JSONL.encode("gb18030"), "GB18030"),
    ("utf16.jsonl", JSONL.encode("utf-16"), "UTF-16"),
    ("utf16_no_mark.jsonl", JSONL.encode("utf-16-le"), "UTF-16"),
    ("bom.jsonl", b"\xef\xbb\xbf" + JSONL.encode(), ""),
    ("crlf.jsonl", JSONL.replace("\n", "\r\n").encode(), ""),
    ("cr.jsonl", JSONL.replace("\n", "\r").encode(), ""),
    ("array.jsonl", ARRAY.encode(), "JSON 数组"),
    ("array_one_line.json", json.dumps(json.loads(ARRAY)).encode(), "JSON 数组"),
    ("no_brackets.jsonl", JSONL.strip().replace("\n", ",\n").encode(), "没有方括号"),
    ("held.json", json.dumps({"version": 1, "data": json.loads(ARRAY)}).encode(), "data"),
    ("held_pretty.json", json.dumps({"train": json.loads(ARRAY)}, indent=2).encode(), "train"),
    ("pretty.jsonl", "\n".join(json.dumps(r, indent=2) for r in json.loads(ARRAY)).encode(), "分成多行"),
    ("turns.jsonl", "\n".join(json.dumps(chat([p])) for p in PAIRS).encode(), ""),
    ("text.txt", "\n\n".join(f"问：{q}\n答：{a}" for q, a in PAIRS).encode(), "问答文字"),
    ("numbered.txt", "\n".join(f"{n}. 问题：{q}\n答案: {a}" for n, (q, a) in enumerate(PAIRS, 1)).encode(), "问答"),
    ("table.csv", "\n".join(["问题,答案", *(f"{q},{a}" for q, a in PAIRS)]).encode("gb18030"), "CSV"),
    ("table.tsv", "\n".join(["question\tanswer", *(f"{q}\t{a}" for q, a in PAIRS)]).encode(), "CSV"),
    ("no_head.csv", "\n".join(f"{q},{a}" for q, a in PAIRS).encode(), "CSV"),
    ("full_width.csv", "\n".join(["问，答", *(f"{q}，{a}" for q, a in PAIRS)]).encode(), "CSV"),
    ("table.txt", "\n".join(["instruction,input,output", *(f"{q},,{a}" for q, a in PAIRS)]).encode(), "CSV"),
])  # fmt: skip
def test_encodings_and_containers_are_read_without_loss(tmp_path, name, raw, said):
    path, out, told = tmp_path / name, tmp_path / "out.jsonl", []
    path.write_bytes(raw)
    rows = [row for _, row in training_rows(path, told.append)]
    assert [(row.question, row.answer) for row in rows] == PAIRS
    assert (len(told) == 1 and said in told[0]) if said else len(told) <= 1
    faults = [f for f in doctor.examine(path) if f.error]
    assert len(faults) <= 1, faults  # a fault of the whole file is one finding
    convert_file(path, out)
    assert read_conversations(out) == rows
    assert not [f for f in doctor.examine(out) if f.error]


def test_a_workbook_of_excel_is_read(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.create_sheet("问答")  # the first sheet stays empty
    for row in (["问题", "答案"], *PAIRS, ["今年是哪年？", 2026], [None, None]):
        sheet.append(row)
    book.save(tmp_path / "rows.xlsx")
    rows = [row.conversation for row in import_file(tmp_path / "rows.xlsx").rows]
    assert [(row.question, row.answer) for row in rows] == [*PAIRS, ("今年是哪年？", "2026")]


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train.jsonl", JSONL)


@pytest.mark.parametrize(("name", "raw", "said"), [
    ("page.jsonl", b"<!DOCTYPE html><html></html>", "网页"),
    ("pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "git lfs pull"),
    ("link.jsonl", b"../../data/train.jsonl", "路径"),
    ("doc.jsonl", b"%PDF-1.7", "PDF"),
    ("table.parquet", b"PAR1....", "Parquet"),
    ("old.xls", b"\xd0\xcf\x11\xe0", "Excel"),
    ("data.zip", None, "压缩包"),
    ("weights.bin", b"\x80\x04\x95", "pickle"),
])  # fmt: skip
def test_what_is_no_data_is_named_once_by_every_command(project, capsys, name, raw, said):
    path = project / name
    archive(path) if raw is None else path.write_bytes(raw)
    for command in (["doctor"], ["import"], ["train", "--run", "x", "--data"]):
        assert main(["--root", str(project), *command, str(path)]) == 2
        message = capsys.readouterr().err
        assert said in message and message.count("\n") == 1 and f"{path}:1:" in message


def line(**record) -> str:
    return json.dumps(record, ensure_ascii=False)


GOOD = line(conversations=chat([("问", "答")]))
# A line, and what is said of it; None where it is used.
LINES = [
    (GOOD, None),
    (line(conversations=chat([("甲", "乙")], "User", " Assistant ")), None),
    (line(conversations=chat([("甲", "乙")], "用户", "助手")), None),
    (line(conversations=chat([("甲", "乙")], "human", "bot")), None),
    (line(conversations=chat([("甲", "乙")], "user", "assistent")), "“assistent”，是 assistant 吗"),
    (line(conversations=chat([("甲", "乙")], "usr2x", "assistant")), "“usr2x”"),
    (line(conversations=chat([("甲", "乙")]) + [{"role": "tool", "content": "{}"}]), "工具"),
    (line(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]), "图片"),
    (line(messages=[{"role": "user", "content": [{"type": "text", "text": "看"}]}, *chat(PAIRS[:1])[1:]]), None),
    (line(conversation=chat([("甲", "乙")])), "是 conversations 吗"),
    (line(text="一段话"), "预训练"),
    (line(question="甲", answer=None), "没有回答"),
    (line(instruction="", input="", output="乙"), "没有问题"),
    (line(conversations=[]), "是空的"),
    (line(conversations=chat(PAIRS[:1])[:1]), "以 assistant 结尾"),
    (line(conversations=chat(PAIRS[:1])[1:]), "第一条"),
    (line(conversations=[*chat(PAIRS[:1])[:1], *chat(PAIRS[:1])]), "第 1、2 条都是 user"),
    ("{'conversations': []}", "单引号"),
    (GOOD[:-1] + ",}", "逗号"),
    (GOOD + ",", "末尾多了逗号"),
    (GOOD + GOOD, "两条"),
    (GOOD.replace('"', "“"), "中文的“”"),
    (GOOD.replace("问", '他说"好"'), "双引号"),
    (GOOD.replace("问", "C:\\饭"), "反斜杠"),
    (GOOD.replace("问", "前\n后"), "断成了 2 行"),
    (GOOD[:40], "没有写完"),
    ('{"conversations": None}', "null"),
    ("# 注释", "注释"),
    ("-----", "分隔线"),
    ("随便一句话", "只是文字"),
    (GOOD.encode()[:-40].decode(errors="surrogateescape"), "没有写完|中间断了"),
    (GOOD.encode("gb18030").decode(errors="surrogateescape"), None),
    (line(conversations=chat([("甲", "<think>想</think>乙")])), None),
    (line(conversation=[{"input": "甲", "output": "乙"}, "丙"]), "应有 input 和 output"),
    (line(instruction="甲", output="乙", history=3), "history 应是"),
    (line(conversations=chat([("甲", "<think>想</think>")])), "没有回答"),
    (line(conversations=chat([("甲", "<think>一直想")])), "没有关上"),
    (line(question="甲", answer="乙", extra="丙"), None),
]  # fmt: skip


def test_every_line_that_cannot_be_used_says_why(tmp_path):
    path = tmp_path / "lines.jsonl"
    texts = [GOOD] * 30 + [text for text, _ in LINES]  # so that the file is UTF-8 in most places
    path.write_bytes("\n".join(texts).encode(errors="surrogateescape"))
    imported = import_file(path)
    said = {broken.line: broken.what for broken in imported.problems}
    number = 31
    for text, reason in LINES:
        if reason is None:
            assert number not in said, (text, said.get(number))
        else:
            assert any(part in said.get(number, "") for part in reason.split("|")), (text, said.get(number))
        number += text.count("\n") + 1
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in what) for what in said.values())


def test_one_fault_of_the_whole_file_is_one_finding(tmp_path):
    path = tmp_path / "python.jsonl"
    path.write_text("\n".join(str({"conversations": chat([pair])}) for pair in PAIRS * 9), encoding="utf-8")
    (finding,) = doctor.examine(path)
    assert "单引号" in finding.what and "共 27 处" in finding.what and finding.line == 1


def test_a_broken_place_of_an_array_costs_no_other_row(tmp_path):
    path = tmp_path / "a.json"
    records = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in PAIRS]
    records[1] = records[1].replace('"answer"', "“answer“")
    path.write_text("[\n  " + ",\n  ".join(records) + "\n]", encoding="utf-8")
    imported = import_file(path)
    assert [row.conversation.question for row in imported.rows] == [PAIRS[0][0], PAIRS[2][0]]
    assert [broken.line for broken in imported.problems] == [3]


def test_side_fields_are_kept_and_thinking_is_dropped_aloud(tmp_path, capsys):
    path, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    turns = chat([("甲", "<think>想一想</think>\n<answer>乙</answer>")])
    turns[1] |= {"reasoning_content": "再想", "tools": None, "tool_calls": ""}
    path.write_text(line(messages=turns, category="课", tags=["一", "二"], score=None), encoding="utf-8")
    imported = convert_file(path, out)
    (row,) = read_conversations(out)
    assert row.answer == "乙" and row.meta == {"category": "课", "tags": '["一", "二"]'}
    told = "".join(change.what for change in imported.changes)
    assert all(word in told for word in ("<think>", "reasoning_content", "<answer>"))
    with pytest.raises(WorkbookError, match="minimind import"):
        list(training_rows(path))


# Good rows with code, which no repair may touch, and rows with what cannot be seen.
contents = st.text(st.sampled_from("你好<b>a[0]{x}&lt; \n\u200b\u2028\u202e《》|#"), min_size=1, max_size=9)


@given(st.lists(st.tuples(contents, contents), min_size=1, max_size=6))
def test_repairs_keep_good_rows_byte_for_byte_and_change_nothing_twice(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("fix")
    a, b, c = (folder / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    good = (
        '{"meta":{},  "conversations":[{"role":"user","content":"vector<int> \\u4f60"},'
        '{"role":"assistant","content":"a[0]，&lt;，{name}。"}]}'
    )
    a.write_text("\n".join([good, *(line(conversations=chat([pair])) for pair in pairs)]), encoding="utf-8")
    convert_file(a, b)
    convert_file(b, c)
    assert b.read_bytes() == c.read_bytes() and b.read_text(encoding="utf-8").split("\n")[0] == good
    errors = {f.what for f in doctor.examine(b) if f.error}
    assert errors <= {f.what for f in doctor.examine(a) if f.error}
    before = {row.conversation.answer.replace("\u2028", "\n") for row in import_file(a).rows}
    for row in read_conversations(b)[1:]:  # only what cannot be seen is gone
        assert any(row.answer in text.replace("\u200b", "").replace("\u202e", "") for text in before)


def test_nothing_is_written_where_nothing_can_be_used(tmp_path):
    path, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_text('{"text": "x"}\n', encoding="utf-8")
    with pytest.raises(WorkbookError, match="没有一条能用的对话"):
        convert_file(path, out)
    with pytest.raises(WorkbookError, match="换一个文件名"):
        convert_file(path, path)
    assert not out.exists() and path.read_text(encoding="utf-8") == '{"text": "x"}\n'


def test_import_writes_beside_the_file_and_tells_what_it_left_out(project, capsys):
    path = project / "found.json"
    path.write_text(
        json.dumps([{"question": "甲", "answer": "乙"}, {"question": "丙", "answer": ""}]), encoding="utf-8"
    )
    assert main(["--root", str(project), "import", str(path)]) == 1
    said = capsys.readouterr().out
    assert "question/answer" in said and f"{path}:1: 没有写进新文件：没有回答" in said
    (row,) = read_conversations(project / "found_imported.jsonl")
    assert isinstance(row, Conversation) and row.question == "甲"
