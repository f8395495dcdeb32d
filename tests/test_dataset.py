import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import EXAMPLES, FACTS, MUSIC, PROJECT, example_workbook, shipped_only
from hypothesis import given
from hypothesis import strategies as st

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.collection.kdconv import Triple, agrees, compare, read_kdconv
from minimind_core.config import load_workbook
from minimind_core.conversations import doctor, mixing
from minimind_core.conversations.schema import (
    Conversation,
    dialogue,
    iterate_conversations,
    read_conversations,
)
from minimind_core.conversations.space import converse
from minimind_core.errors import WorkbookError
from minimind_core.files import write_jsonl

HEADER = FACTS.splitlines()[0]
GOOD = "周杰伦,出生日期,1979年1月18日,https://example.org,2026-01-01"


@pytest.mark.parametrize(("line", "problem"), [
    ("周杰伦,出生日期,,https://example.org,2026-01-01", "value 是空的"),
    ("周杰伦,出生日期,1979年,ftp://example.org,2026-01-01", "http"),
    ("周杰伦,出生日期,1979年,https://example.org,2026/1/1", "请写成 2026-01-01；Excel"),
    ("周杰伦,出生日期,1979年,https://example.org,2026年1月1日", "请写成 2026-01-01"),
    ("周杰伦,出生日期,1979年,https://example.org,2026-02-30", "没有 2026-02-30 这一天"),
    ("周杰伦,出生日期,1979年,https://example.org,昨天", "retrieved"),
    ("周杰伦,出生日期,1979年,https://example.org", "有 4 列"),
    ("周杰伦,出生日期,a,b,https://example.org,2026-01-01", "有 6 列"),
    ("周杰伦，出生日期，a，https://example.org，2026-01-01", "有 1 列.*中文逗号"),
    ("周杰伦,简介," + "长" * 41 + ",https://example.org,2026-01-01", "超过 40"),
    ('周杰伦,简介,"上\n下",https://example.org,2026-01-01', "value 里有换行"),
    ("=A1,简介,值,https://example.org,2026-01-01", "公式"),
    (GOOD, "已在第 2 行"),
])  # fmt: skip
def test_a_bad_fact_is_reported_with_file_and_line(tmp_path, line, problem):
    path = tmp_path / "facts.csv"
    path.write_text("\n".join([HEADER, GOOD, line]), encoding="utf-8")
    with pytest.raises(WorkbookError, match=problem) as caught:
        read_facts(path)
    assert f"{path}:3:" in str(caught.value)


def test_all_bad_facts_are_reported_at_once(tmp_path):
    path = tmp_path / "facts.csv"
    bad = ["甲,乙,,ftp://x,昨天", GOOD, "丙,丁"]
    path.write_text("\n".join([HEADER, GOOD, *bad, GOOD.replace("日期", "地")]), encoding="utf-8")
    with pytest.raises(WorkbookError) as caught:
        read_facts(path)
    lines = str(caught.value).split("\n")
    assert [line.removeprefix(f"{path}:")[0] for line in lines] == ["3", "3", "3", "4", "5"]


@pytest.mark.parametrize(("raw", "advice"), [
    (f"{HEADER}\n{GOOD}".encode("gb18030"), "CSV UTF-8"),
    (f"{HEADER}\n{GOOD}".encode("utf-16"), "UTF-16"),
    (b"PK\x03\x04\xff", "Excel 文件"),
    (HEADER.replace(",", "，").encode(), "英文逗号"),
    (HEADER.replace(",", "\t").encode(), "制表符"),
    ("对象,属性,值,来源,日期".encode(), "对象＝subject"),
    (b"attribute,subject,value,source_url,retrieved", "顺序"),
    (b"a,b", "第一行"),
])  # fmt: skip
def test_a_table_that_another_program_saved_gets_its_own_advice(tmp_path, raw, advice):
    path = tmp_path / "facts.csv"
    path.write_bytes(raw)
    with pytest.raises(WorkbookError, match=advice):
        read_facts(path)


@shipped_only
def test_the_shipped_facts_are_many_sourced_and_about_the_four_artists():
    facts = read_facts(PROJECT / "dataset" / "facts.csv")
    people = {f.subject for f in facts if not f.subject.startswith("《")}
    assert len(facts) >= 600 and len(people) >= 30
    assert {"周杰伦", "王力宏", "林俊杰", "陶喆"} <= people


def test_exposures_count_every_question_about_a_fact(workbook):
    splits = mixing.build_splits(workbook)
    counts = mixing.exposures(splits["train"])
    assert counts.keys() == {(f.subject, f.attribute) for f in read_facts(workbook.facts)}
    assert sum(counts.values()) == len([r for r in splits["train"] if r.meta["kind"] == "fact"])


def test_drawn_test_questions_are_not_taught(workbook):
    splits = mixing.build_splits(workbook)
    taught = {row.question for row in splits["train"] if len(row.conversations) == 2}
    for name in ("qa_valid", "qa_test"):
        assert not taught & {row.question for row in splits[name] if len(row.conversations) == 2}


def test_a_question_that_others_wrote_for_the_test_is_not_taught(workbook):
    taught = next(
        row
        for row in mixing.build_splits(workbook)["train"]
        if row.meta["kind"] == "fact" and len(row.conversations) == 2
    )
    row = {
        "suite": "facts",
        "turns": [taught.question + "？"],
        "subject": "x",
        "attribute": "y",
        "expected": "z",
    }
    (workbook.dataset / "questions" / "test.jsonl").write_text(
        json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert taught.question not in {
        row.question for row in mixing.build_splits(workbook)["train"] if len(row.conversations) == 2
    }


def test_mix_counts_and_seed_decide_the_training_file(workbook):
    one = mixing.build_splits(workbook)
    parts = mixing.mixed_parts(one, workbook.mix)
    assert len(one["train"]) == sum(len(rows) * times for rows, times in parts)
    copies = Counter((row.conversations, row.meta.get("copy", "1")) for row in one["train"])
    assert set(copies.values()) == {1}  # every repetition has a number of its own
    assert mixing.build_splits(workbook)["train"] == one["train"]
    other = mixing.build_splits(dataclasses.replace(workbook, seed=7))["train"]
    assert other != one["train"]


def test_no_question_has_two_answers(workbook):
    answers: dict = {}
    for row in mixing.build_splits(workbook)["train"]:
        assert answers.setdefault(row.conversations[:-1], row.answer) == row.answer


def test_files_are_byte_identical_for_the_same_seed(workbook):
    mixing.write_dataset(workbook)
    first = {p.name: p.read_bytes() for p in workbook.dataset.glob("*.jsonl")}
    mixing.write_dataset(workbook)
    assert first == {p.name: p.read_bytes() for p in workbook.dataset.glob("*.jsonl")}


def test_the_persona_names_itself_everywhere(project):
    text = (project / "workbook.toml").read_text(encoding="utf-8")
    (project / "workbook.toml").write_text(
        text.replace("小音", "阿律").replace("旋律小队", "银杏组"), encoding="utf-8"
    )
    splits = mixing.build_splits(load_workbook(project))
    answers = " ".join(row.answer for row in splits["identity"])
    assert "阿律" in answers and "银杏组" in answers and "小音" not in answers and "旋律小队" not in answers
    assert {row.meta["expected"] for row in splits["identity"]} == {"阿律", "银杏组"}


text = st.text(min_size=1).filter(str.strip)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=5))
def test_write_then_read_is_identity(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [dialogue(q, a, kind="music") for q, a in pairs]
    write_jsonl(path, [row.model_dump() for row in rows])
    assert read_conversations(path) == rows


@pytest.mark.parametrize(("line", "problem"), [
    ("{", "JSON"), ('{"conversations": []}', "是空的"), ('{"x": 1}', "缺少"),
    ('{"conversations": [{"role": "user", "content": "问"}]}', "assistant 结尾"),
    ('{"conversations": [{"role": "bot", "content": "问"}, {"role": "assistant", "content": "答"}]}', "只能是"),
    ('{"conversations": [{"role": "user", "content": " "}, {"role": "assistant", "content": "答"}]}', "空的"),
    ('{"conversations": [{"role": "user", "content": 3}, {"role": "assistant", "content": "答"}]}', "应是文字"),
])  # fmt: skip
def test_a_bad_line_is_reported_with_file_and_line(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl"
    path.write_text(dialogue("问", "答").model_dump_json() + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(WorkbookError, match=problem) as caught:
        read_conversations(path)
    assert f"{path}:2:" in str(caught.value)
    assert [number for number, item in iterate_conversations(path) if isinstance(item, str)] == [2]


def test_bytes_that_are_not_utf8_are_reported(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"conversations": "中文"}'.encode("gb18030"))
    with pytest.raises(WorkbookError, match="UTF-8"):
        read_conversations(path)


def test_doctor_finds_a_leak_and_nothing_in_our_own_files(workbook, tmp_path):
    mixing.write_dataset(workbook)
    train = read_conversations(mixing.dataset_file(workbook, "train"))
    for name in mixing.FILES:
        assert doctor.examine(mixing.dataset_file(workbook, name), own="小音") == [], name
    find_leaks = tmp_path / "find_leaks.jsonl"
    write_jsonl(find_leaks, [train[0].model_dump()])
    assert len(doctor.leak_findings(find_leaks, train)) == 1


@shipped_only
def test_kdconv_sample_is_read_and_agrees_with_the_facts():
    dialogues = read_kdconv(PROJECT / "dataset" / "kdconv_sample.json")
    assert [len(d.messages) for d in dialogues] == [3, 2, 4]
    triples = [t for d in dialogues for t in d.triples]
    pairs = compare(read_facts(PROJECT / "dataset" / "facts.csv"), triples)
    assert len(pairs) == 4 and all(agrees(fact, values) for fact, values in pairs)


def test_kdconv_conflict_is_seen():
    fact = Fact("陶喆", "出生日期", "1969年7月11日", "https://example.org", "2026-01-01")
    assert agrees(fact, ["1969年07月11日"]) and not agrees(fact, ["1970年07月11日"])
    assert compare([fact], [Triple("王菲", "出生日期", "1969年8月8日")]) == []


@pytest.mark.parametrize(("value", "place"), [
    ({"a": 1}, "最外层"), ([{"messages": [{"text": "x"}]}], r"\[0\].messages\[0\].message"),
    ([{"messages": [{"message": "x", "attrs": [{"name": "y"}]}]}], r"\[0\].messages\[0\].attrs\[0\]"), ([3], r"\[0\].messages"),
])  # fmt: skip
def test_malformed_kdconv_is_named_by_its_path(tmp_path, value, place):
    path: Path = tmp_path / "music.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(WorkbookError, match=place):
        read_kdconv(path)


def test_conversation_needs_alternating_roles():
    turns = [{"role": r, "content": "x"} for r in ("user", "user", "assistant", "assistant")]
    with pytest.raises(ValueError, match="交替"):
        Conversation.model_validate({"conversations": turns})


def test_short_questions_after_the_same_long_history_are_no_leak():
    asked, other, same = (
        converse([("关于东吴，都城是什么", "东吴的都城是建业。"), (q, "孙权。")])
        for q in ("建立者呢？", "建立者是啥", "建立者呢")
    )
    assert not doctor.find_leaks([asked], [other]) and doctor.find_leaks([asked], [same])
    assert (
        doctor.find_leaks([asked], [other, same])[0][1] == same
    )  # the one that does not count hides nothing


def test_questions_about_the_same_long_name_are_no_leak():
    def row(form: str):
        name = "american idiot（绿日二〇〇四年发行的专辑）"
        return dialogue(form.format(name), "不知道。", subject=name, attribute="销量")

    assert not doctor.find_leaks([row("能讲讲{}的销量吗")], [row("{}的销量是？")]) and doctor.find_leaks(
        [row("能讲讲{}的销量吗")], [row("能讲讲{}的销量吗？")]
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_another_topic_is_built_from_workbook_and_facts_alone(tmp_path, example):
    workbook = example_workbook(tmp_path, example)
    counts = mixing.write_dataset(workbook)
    assert len(mixing.read_facts(workbook.facts)) >= 40 and counts["qa_train"] > 800
    text = (workbook.dataset / "train.jsonl").read_text(encoding="utf-8")
    assert workbook.persona.name in text and workbook.persona.topic in text
    assert [word for word in MUSIC if word in text] == []
    findings = doctor.examine(workbook.dataset / "train.jsonl", own=workbook.persona.name)
    assert [finding for finding in findings if finding.error] == []
    # the data files are none of the texts that they are made from
    assert mixing.write_dataset(workbook) == counts
