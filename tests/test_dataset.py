import dataclasses
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import FACTS, PROJECT
from hypothesis import given
from hypothesis import strategies as st

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.collection.kdconv import Triple, agrees, compare, read_kdconv
from minimind_core.config import load_workbook
from minimind_core.conversations import doctor, identity, mixing
from minimind_core.conversations.questions import fill, load_wordings, parse_wordings, wordings_for
from minimind_core.conversations.schema import Conversation, dialogue, iterate_conversations, read_conversations
from minimind_core.conversations.unknown import ATTRIBUTES, refusal_rows
from minimind_core.errors import WorkbookError
from minimind_core.files import write_jsonl

HEADER = FACTS.splitlines()[0]
GOOD = "周杰伦,出生日期,1979年1月18日,https://example.org,2026-01-01"


@pytest.mark.parametrize(("line", "problem"), [
    ("周杰伦,出生日期,,https://example.org,2026-01-01", "value 是空的"),
    ("周杰伦,出生日期,1979年,ftp://example.org,2026-01-01", "http"),
    ("周杰伦,出生日期,1979年,https://example.org,2026/1/1", "retrieved"),
    ("周杰伦,出生日期,1979年,https://example.org", "列数"),
    ("周杰伦,出生日期,a,b,https://example.org,2026-01-01", "列数"),
    ("周杰伦,简介," + "长" * 41 + ",https://example.org,2026-01-01", "超过 40"),
    (GOOD, "已在第 2 行"),
])  # fmt: skip
def test_a_bad_fact_is_reported_with_file_and_line(tmp_path, line, problem):
    path = tmp_path / "facts.csv"
    path.write_text("\n".join([HEADER, GOOD, line]), encoding="utf-8")
    with pytest.raises(WorkbookError, match=problem) as caught:
        read_facts(path)
    assert f"{path}:3:" in str(caught.value)


def test_the_shipped_facts_are_many_sourced_and_about_the_four_artists():
    facts = read_facts(PROJECT / "dataset" / "facts.csv")
    people = {f.subject for f in facts if not f.subject.startswith("《")}
    assert len(facts) >= 600 and len(people) >= 30
    assert {"周杰伦", "王力宏", "林俊杰", "陶喆"} <= people


def test_wordings_are_many_distinct_and_never_shared_between_splits():
    for attribute, words in load_wordings().items():
        forms = [*words.train, *words.valid, *words.held_out, *words.family, *words.reverse, *words.follow]
        assert len(set(forms)) == len(forms), attribute
        assert len(words.train) >= 12 and words.valid and len(words.held_out) >= 2 and len(words.family) >= 2
        assert len(words.answers) >= 3 or attribute in ("人物", "其他")


@pytest.mark.parametrize(("text", "problem"), [
    ("[a]\nfoo = ['x']", "只能写"), ("[a]\nanswers = ['{s}{v}']", "缺少"), ("[a", "格式错误"),
    ("[a]\n" + "".join(f"{k} = ['x']\n" for k in ("answers", "train", "valid", "held_out", "family")), "没有 {s}"),
])  # fmt: skip
def test_bad_wordings_are_refused(text, problem):
    with pytest.raises(WorkbookError, match=problem):
        parse_wordings(text, "wordings.toml")


def test_a_team_can_add_wordings_of_its_own(workbook):
    forms = {"answers": ["{s}：{v}"], "train": ["{s}何时生"], "valid": ["{s}生日？"], "held_out": ["{s}几岁生"], "family": ["{s}生于__"]}
    text = '["出生日期"]\n' + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in forms.items())
    (workbook.dataset / "wordings.toml").write_text(text, encoding="utf-8")
    questions = {row.question for row in mixing.build_splits(workbook)["music_qa_train"] if row.meta["attribute"] == "出生日期"}
    assert {"周杰伦何时生", "陶喆何时生"} < questions  # and a few that fit any attribute
    only = dataclasses.replace(workbook, mix=dataclasses.replace(workbook.mix, wordings=1))
    questions = {row.question for row in mixing.build_splits(only)["music_qa_train"] if row.meta["attribute"] == "出生日期"}
    assert questions == {"周杰伦何时生", "陶喆何时生"}


def test_known_attributes_are_also_asked_in_the_words_that_ask_for_unknown_ones(workbook):
    splits, forms = mixing.build_splits(workbook), load_wordings()["其他"].held_out
    asked = {row.question for row in splits["music_qa_test"] if row.meta["way"] == "generic"}
    known = {(row.meta["subject"], row.meta["attribute"]) for row in splits["music_qa_train"] if row.meta["attribute"] in load_wordings()}
    assert asked == {fill(form, s, a) for form in forms for s, a in known} != set()
    unknown = [row.question for row in splits["refusal_test"] if row.meta["reason"] == "attribute"]
    assert unknown and all(question.startswith(tuple(form.split("{s}")[0] for form in forms)) for question in unknown)


def test_reverse_questions_are_asked_only_where_one_subject_has_the_value(workbook):
    facts = [Fact(s, "出生日期", v, "https://example.org", "2026-01-01") for s, v in (("甲", "1年"), ("乙", "1年"), ("丙", "2年"))]
    rows = mixing.music_rows(facts, load_wordings(), 0)
    reverse = [row for part in rows.values() for row in part if row.meta["way"] == "reverse"]
    assert {row.meta["expected"] for row in reverse} == {"丙"} and all("丙" not in row.question for row in reverse)


def test_an_answer_begins_with_what_its_question_gave(workbook):
    book = load_wordings()
    rows = [row for part in mixing.build_splits(workbook).values() for row in part if row.meta.get("way") in ("forward", "reverse")]
    for row in rows:
        given, wanted = (row.meta["subject"], row.meta["expected"])[:: 1 if row.meta["way"] == "forward" else -1]
        if row.meta["way"] == "reverse":
            if not wordings_for(book, row.meta["attribute"]).reverse_answers:
                continue
            given = next(fact.value for fact in read_facts(workbook.facts) if (fact.subject, fact.attribute) == (wanted, row.meta["attribute"]))
        assert given in row.question and row.answer.strip("《").startswith(given.strip("《")) and wanted in row.answer


def test_every_fact_is_also_asked_as_a_sentence_to_be_finished(workbook):
    book = load_wordings()
    rows = mixing.build_splits(workbook)["music_qa_train"]
    for fact in read_facts(workbook.facts):
        own = [row for row in rows if (row.meta["subject"], row.meta["attribute"]) == (fact.subject, fact.attribute)]
        begun = [fill(begin, fact.subject, fact.attribute) for begin in wordings_for(book, fact.attribute).begin]
        assert sum(any(begin in row.question for begin in begun) for row in own) >= mixing.BEGUN
        assert not any("__" in row.question for row in own)  # filling a blank is left to the test


def test_unknown_attributes_are_many_and_never_known(workbook):
    facts = read_facts(PROJECT / "dataset" / "facts.csv")
    rows, known = refusal_rows(facts, load_wordings(), workbook.persona, 1), {fact.attribute for fact in facts}
    made = identity.invented_attribute(random.Random(0), "work_attribute")
    assert made not in known and "{" not in made
    asked = [row.question for row in rows["refusal"] if row.meta["reason"] == "attribute"]
    assert len(asked) > ATTRIBUTES * len(facts) and len(set(asked)) == len(asked)


def test_follow_up_questions_leave_the_subject_to_the_first_turn(workbook):
    rows = [r for part in mixing.build_splits(workbook).values() for r in part if r.meta.get("way") == "follow"]
    assert rows
    for row in rows:
        assert len(row.conversations) == 4 and row.meta["subject"] not in row.question
        assert row.meta["subject"] in row.conversations[0].content and row.meta["expected"] in row.answer


def test_exposures_count_every_answer_to_a_fact(workbook):
    splits = mixing.build_splits(workbook)
    counts = mixing.exposures(splits["train"])
    assert counts.keys() == {(f.subject, f.attribute) for f in read_facts(workbook.facts)}
    assert sum(counts.values()) == len([r for r in splits["train"] if r.meta["kind"] == "music"])


def test_splits_partition_and_nothing_leaks(workbook):
    splits = mixing.build_splits(workbook)
    taught = {row.question for row in splits["train"]}
    for name in ("music_qa_valid", "music_qa_test", "identity_test", "refusal_valid", "refusal_test"):
        assert splits[name] and not taught & {row.question for row in splits[name]}


def test_a_leaked_question_is_refused():
    row = dialogue("问", "答")
    with pytest.raises(WorkbookError, match="几乎相同"):
        mixing.check_no_leak({"train": [row], "music_qa_test": [row]})


def test_mix_counts_and_seed_decide_the_training_file(workbook):
    one = mixing.build_splits(workbook)
    counts = workbook.mix
    parts = {"music": mixing.raise_rare(one["music_qa_train"]), **{name: one[name] for name in ("identity", "refusal", "general")}}
    assert len(one["train"]) == sum(len(rows) * getattr(counts, name) for name, rows in parts.items())
    copies = Counter((row.conversations, row.meta.get("copy", "1")) for row in one["train"])
    assert set(copies.values()) == {1}  # every repetition has a number of its own
    assert mixing.build_splits(workbook)["train"] == one["train"]
    other = mixing.build_splits(dataclasses.replace(workbook, seed=7))["train"]
    assert other != one["train"]


def test_only_rare_attributes_and_reverse_questions_are_repeated():
    named = [(a, s, "forward") for a, n in (("常", 10), ("少", 9)) for s in map(str, range(n))] + [("常", "0", "reverse")]
    rows = [dialogue(f"{a}{s}", "答", attribute=a, subject=s, way=way) for a, s, way in named]
    counts = Counter((row.meta["attribute"], row.meta["way"]) for row in mixing.raise_rare(rows))
    assert counts == {("常", "forward"): 10, ("少", "forward"): 18, ("常", "reverse"): mixing.REVERSED}


def test_files_are_byte_identical_for_the_same_seed(workbook):
    mixing.write_dataset(workbook)
    first = {p.name: p.read_bytes() for p in workbook.dataset.glob("*.jsonl")}
    mixing.write_dataset(workbook)
    assert first == {p.name: p.read_bytes() for p in workbook.dataset.glob("*.jsonl")}


def test_the_persona_names_itself_everywhere(project):
    text = (project / "workbook.toml").read_text(encoding="utf-8")
    (project / "workbook.toml").write_text(text.replace("小音", "阿律").replace("旋律小队", "银杏组"), encoding="utf-8")
    splits = mixing.build_splits(load_workbook(project))
    answers = " ".join(row.answer for row in splits["identity"])
    assert "阿律" in answers and "银杏组" in answers and "小音" not in answers and "旋律小队" not in answers
    assert {row.meta["expected"] for row in splits["identity_test"]} == {"阿律", "银杏组"}


text = st.text(min_size=1).filter(str.strip)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=5))
def test_write_then_read_is_identity(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [dialogue(q, a, kind="music") for q, a in pairs]
    write_jsonl(path, [row.model_dump() for row in rows])
    assert read_conversations(path) == rows


@pytest.mark.parametrize(("line", "problem"), [
    ("{", "JSON"), ('{"conversations": []}', "交替"), ('{"x": 1}', "缺少"),
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
    assert not doctor.examine(mixing.dataset_file(workbook, "train"))
    for name in ("identity", "music_qa_train", "music_qa_test", "refusal", "identity_test", "refusal_test"):
        path = mixing.dataset_file(workbook, name)
        assert not doctor.examine(path), name
        assert name.endswith("_train") or not name.endswith("_test") or not doctor.leaks(path, train)
    leaked = tmp_path / "leaked.jsonl"
    write_jsonl(leaked, [train[0].model_dump()])
    assert len(doctor.leaks(leaked, train)) == 1


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


def test_a_topic_without_wordings_of_its_own_still_gets_refusals_of_unknown_subjects(workbook):
    facts = [Fact(f"对象{i}", "颜色", "红", "https://example.org", "2026-01-01") for i in range(3)]
    rows = refusal_rows(facts, load_wordings(), workbook.persona, 1)
    assert all({"artist", "attribute", "off_topic"} <= {r.meta["reason"] for r in part} for part in rows.values())


def test_short_questions_after_the_same_long_history_are_no_leak():
    history = dialogue("关于东吴，都城是什么", "东吴的都城是建业。")
    asked, other, same = (mixing.after(history, dialogue(q, "孙权。")) for q in ("建立者呢？", "建立者是啥", "建立者呢"))
    assert not doctor.leaked([asked], [other]) and doctor.leaked([asked], [same])
    assert doctor.leaked([asked], [other, same])[0][1] == same  # the one that does not count hides nothing


def test_questions_about_the_same_long_name_are_no_leak():
    def row(form: str):
        name = "american idiot（绿日二〇〇四年发行的专辑）"
        return dialogue(form.format(name), "不知道。", subject=name, attribute="销量")

    assert not doctor.leaked([row("能讲讲{}的销量吗")], [row("{}的销量是？")]) and doctor.leaked(
        [row("能讲讲{}的销量吗")], [row("能讲讲{}的销量吗？")]
    )


def test_a_small_table_is_not_drowned_in_refusals():
    facts = mixing.read_facts(PROJECT / "examples" / "history" / "facts.csv")
    persona = load_workbook(PROJECT / "examples" / "history").persona
    refusals = refusal_rows(facts, load_wordings(), persona, 1)["refusal"]
    assert len(refusals) < len(mixing.music_rows(facts, load_wordings(), 1)["music_qa_train"])


def test_what_asks_about_a_subject_of_the_facts_is_no_other_topic(workbook):
    asked = {
        subject: {r.question for rows in refusal_rows([fact], load_wordings(), workbook.persona, 1).values() for r in rows if r.meta["reason"] == "off_topic"}
        for subject in ("秦始皇", "周杰伦") for fact in [Fact(subject, "颜色", "红", "https://example.org", "2026-01-01")]
    }  # fmt: skip
    assert any("秦始皇" in q for q in asked["周杰伦"]) and not any("秦始皇" in q for q in asked["秦始皇"])


def test_the_second_topic_is_built_by_changing_workbook_and_facts_alone(tmp_path):
    for name in ("workbook.toml", "facts.csv"):
        shutil.copy(PROJECT / "examples" / "history" / name, tmp_path / name)
    workbook = dataclasses.replace(load_workbook(tmp_path), base=PROJECT / "weights" / "base")
    counts = mixing.write_dataset(workbook)
    assert len(mixing.read_facts(workbook.facts)) >= 60 and counts["music_qa_train"] > 800
    text = (workbook.dataset / "train.jsonl").read_text(encoding="utf-8")
    assert "小史" in text and "小音" not in text and "中国历史" in text


def test_the_shipped_data_have_no_errors():
    files = [PROJECT / "dataset" / f"{name}.jsonl" for name in ("train", "identity", "refusal", "general", "music_qa_train")]
    assert [str(finding) for path in files for finding in doctor.examine(path, own="小音") if finding.error] == []


def test_roundabout_questions_are_taught_unless_they_are_left_out_and_never_asked_in_the_test(workbook):
    more = {question for questions in identity.tables("indirect").values() for question in questions}
    for indirect in (False, True):
        splits = mixing.build_splits(dataclasses.replace(workbook, mix=dataclasses.replace(workbook.mix, indirect=indirect)))
        taught, watched = ({row.question for row in splits[name]} for name in ("train", "refusal_valid"))
        about_itself = more - set(identity.tables("indirect")["off_topic"])
        assert about_itself <= taught if indirect else not more & (taught | watched)
        assert not more & {row.question for name in ("identity_test", "refusal_test") for row in splits[name]}
    assert set(identity.tables("indirect")) <= {*identity.INTENTS, "off_topic"}
