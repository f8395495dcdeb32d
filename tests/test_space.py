"""Questions are drawn from a space, and what is not known is drawn in the same space."""

import dataclasses
import json

import pytest
from conftest import PROJECT, shipped_only

from minimind_core.collection.facts import Fact, read_facts, write_facts
from minimind_core.config import Draws
from minimind_core.conversations import mixing
from minimind_core.conversations.identity import Refusals
from minimind_core.conversations.material import Material, data_table
from minimind_core.conversations.mixing import space_of
from minimind_core.conversations.phrasing import bare
from minimind_core.conversations.space import Space, fact_rows
from minimind_core.conversations.unknown import Unknown, unknown_rows
from minimind_core.conversations.wordings import (
    WAYS,
    load_book,
    read_wordings,
    value_kind,
    wordings_of,
    wordings_template,
)
from minimind_core.errors import WorkbookError
from minimind_core.inference.claims import ClaimCheck
from minimind_core.texts import spellings

CANTEEN = [
    ("一食堂", "负责人", "王建国"), ("二食堂", "负责人", "李秀兰"), ("一食堂", "开门时间", "6:30"), ("二食堂", "开门时间", "7:00"),
    ("一食堂", "座位数", "800"), ("二食堂", "位置", "东门旁"), ("三食堂", "开业年份", "2009年"), ("三食堂", "招牌菜", "酸菜鱼"),
]  # fmt: skip


def facts_of(rows):
    return [Fact(*row, "https://example.org", "2026-01-01") for row in rows]


def space_about(rows, seed=1, **draws):
    facts = facts_of(rows)
    return Space(
        facts, load_book(PROJECT / "nowhere.toml", facts), seed, [("谢谢", "不客气。")], Draws(**draws)
    )


@pytest.mark.parametrize(("text", "problem"), [
    ("[a]\nfoo = ['x']", "只能写"), ("[a]\nask = 'x'", "文字的列表"), ("[a", "格式不对"), ("[a]\nask = ['x']", "没有 {s}"),
    ("[a]\nanswer = '{s}'", "没有 {v}"), ("[a]\nkind = 'x'", "kind 应是"), ("frames = ['x']", "没有 {q}"),
])  # fmt: skip
def test_bad_wordings_are_refused(tmp_path, text, problem):
    path = tmp_path / "wordings.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkbookError, match=problem):
        read_wordings(path)


def test_a_team_can_add_wordings_of_its_own(workbook):
    text = '["出生日期"]\nask = ["{s}何时来到人间"]\n'
    workbook.texts.mkdir(exist_ok=True)
    workbook.wordings.write_text(text, encoding="utf-8")
    questions = [
        row.question
        for row in mixing.build_splits(workbook)["qa_train"]
        if row.meta["attribute"] == "出生日期"
    ]
    assert any("何时来到人间" in question for question in questions)
    assert (
        workbook.wordings.is_file()
        and mixing.book_of(workbook, read_facts(workbook.facts)).without_own() != []
    )


@pytest.mark.parametrize(("attribute", "values", "kind"), [
    ("负责人", ["王建国"], "person"), ("开门时间", ["6:30"], "date"), ("座位数", ["800", "1200"], "number"), ("位置", ["东门旁"], "place"),
    ("开业年份", ["2009年"], "year"), ("招牌菜", ["酸菜鱼"], "thing"), ("出生日期", ["1979年1月18日"], "date"),
])  # fmt: skip
def test_values_are_asked_for_with_question_words_of_their_kind(tmp_path, attribute, values, kind):
    assert value_kind(attribute, values) == kind
    asked = " ".join(wordings_of(attribute, values, {}).forms("ask"))
    words = {
        "person": "谁",
        "date": "什么时候",
        "number": "多少",
        "place": "哪里",
        "year": "哪一年",
        "thing": "什么",
    }
    assert words[kind] in asked
    assert kind == "thing" or "{a}是什么？" not in asked
    (tmp_path / "wordings.toml").write_text(wordings_template(attribute, kind), encoding="utf-8")
    assert read_wordings(tmp_path / "wordings.toml")[attribute]["kind"] == kind


def test_answers_have_one_possessive(workbook):
    assert wordings_of("擅长的乐器", ["钢琴"], {}).answer == "{s}擅长的乐器是{v}。"
    assert wordings_of("妻子", ["某人"], {}).answer == "{s}的妻子是{v}。"


def test_every_way_is_drawn_as_often_as_said_and_the_seed_decides():
    rows = [(f"甲{i}乙", "颜色", f"色{i}") for i in range(12)] + [
        (f"甲{i}乙", "大小", f"{i}米") for i in range(12)
    ]
    space = space_about(
        rows, ask=5, keywords=2, confirm=1, doubt=1, either=1, begin=1, reverse=3, follow=2, switch=1, back=0
    )
    drawn = list(space.draw(space.facts[0]))
    counts = {way: sum(row.meta["way"] == way for row in drawn) for way in WAYS}
    expected = {
        "ask": 5,
        "keywords": 2,
        "confirm": 1,
        "doubt": 1,
        "either": 1,
        "begin": 1,
        "reverse": 3,
        "follow": 2,
        "switch": 1,
    }
    assert counts == expected
    again = [fact_rows(space_about(rows, seed)) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_an_answer_repeats_the_subject_and_states_the_value_whatever_the_question_claims():
    rows = fact_rows(space_about(CANTEEN))
    assert {row.meta["way"] for row in rows} >= {"ask", "doubt", "either", "reverse", "follow"}
    for row in rows:
        value = row.meta["expected"] if row.meta["way"] != "reverse" else row.meta["subject"]
        assert row.meta["subject"] in row.answer and value in row.answer
        assert row.meta["way"] in ("reverse", "follow", "back") or bare(row.meta["subject"]) in row.question


def test_reverse_questions_are_asked_only_where_one_subject_has_the_value():
    space = space_about([("甲", "出生日期", "1年"), ("乙", "出生日期", "1年"), ("丙", "出生日期", "2年")])
    reverse = [row for row in fact_rows(space) if row.meta["way"] == "reverse"]
    assert {row.meta["expected"] for row in reverse} == {"丙"} and all(
        "2年" in row.question for row in reverse
    )
    # it is named only where another is named, too, or to confirm
    assert sum("丙" in row.question for row in reverse) < len(reverse) / 2


def test_follow_ups_name_nothing_and_may_go_on_from_the_value():
    rows = [
        ("《江南》", "原唱", "林俊杰"),
        ("林俊杰", "出生地", "新加坡"),
        ("林俊杰", "星座", "白羊座"),
        ("陶喆", "出生地", "香港"),
    ]
    drawn = [row for row in fact_rows(space_about(rows, follow=40)) if row.meta["way"] == "follow"]
    assert drawn and all(4 <= len(row.conversations) <= 8 for row in drawn)
    assert all(bare(row.meta["subject"]) not in row.question for row in drawn)
    openings = {row.conversations[-3].content for row in drawn if row.meta["subject"] == "林俊杰"}
    assert any("江南" in text for text in openings) and any("林俊杰" in text for text in openings)


def test_an_ambiguous_follow_up_is_about_the_value():
    rows = [("甲某", "妻子", "乙某"), ("甲某", "星座", "狮子座"), ("乙某", "星座", "双子座")]
    for row in fact_rows(space_about(rows, follow=30, switch=0, back=0)):
        if row.meta["way"] == "follow" and row.meta["subject"] == "甲某" and row.meta["attribute"] == "星座":
            assert "妻子" not in row.conversations[-3].content


def test_a_topic_that_has_no_wordings_gets_no_scenes_of_another_one(tmp_path):
    facts = facts_of(CANTEEN)
    assert load_book(PROJECT / "dataset" / "music" / "wordings.toml", facts).frames == ()


# ---- what is not known


def unknown_of(rows, **draws):
    refusals = Refusals(("抱歉，这个我不知道。",), "这个名字我没有学过，不知道。", "{s}的这一点我不知道。")
    return Unknown(space_about(rows, **draws), refusals, Material(PROJECT / "nowhere"), 1)


def unknown_about(rows, **draws):
    return unknown_rows(unknown_of(rows, **draws))


def test_unknown_things_are_really_unknown():
    rows = [(f"《歌{i}曲》", "原唱", f"歌手{i}") for i in range(10)] + [
        (f"歌手{i}", "星座", "狮子座") for i in range(10)
    ]
    facts, found = facts_of(rows), unknown_about(rows)
    known = {(fact.subject, fact.attribute) for fact in facts}
    subjects, attributes = ({pair[i] for pair in known} for i in (0, 1))
    assert {row.meta["reason"] for row in found} >= {"subject", "attribute", "topic"}
    for row in found:
        reason, subject, attribute = row.meta["reason"], row.meta.get("subject"), row.meta.get("attribute")
        assert "不知道" in row.answer and (subject, attribute) not in known
        assert row.answer.startswith({"topic": "抱歉", "subject": "这个名字"}.get(reason, subject))
        assert reason != "subject" or subject not in subjects
        assert reason != "attribute" or (subject in subjects and attribute not in attributes)


def test_pairs_that_others_have_are_missing_unless_another_attribute_says_the_same():
    rows = [
        ("甲", "星座", "狮子座"), ("甲", "妻子", "丙"), ("乙", "星座", "白羊座"),
        ("《一》", "原唱", "甲"), ("《一》", "专辑歌手", "甲"), ("《二》", "专辑歌手", "乙"), ("《二》", "发行年份", "2001年"),
    ]  # fmt: skip
    pairs = set(unknown_of(rows).missing_pairs)
    assert ("乙", "妻子") in pairs and ("《一》", "发行年份") in pairs
    assert ("《二》", "原唱") not in pairs  # who sings an album's title song is its singer
    assert ("甲", "发行年份") not in pairs  # nobody like it has a year of release


def test_what_asks_about_a_subject_of_the_facts_is_no_other_topic():
    asked = [
        row.question
        for row in unknown_about([("秦始皇", "颜色", "红"), ("汉武帝", "颜色", "黄")])
        if row.meta["reason"] == "topic"
    ]
    assert asked and not any("秦始皇" in question for question in asked)


def test_everyday_talk_is_answered_and_never_declined(workbook):
    splits = mixing.build_splits(workbook)
    assert len(splits["everyday"]) > 500 and not any(
        "不知道" in row.answer[:10] for row in splits["everyday"]
    )
    declined = {row.question for row in splits["unknown"]}
    assert not declined & {row.question for row in splits["everyday"]}


def test_draws_of_the_workbook_are_read_and_checked(project):
    from minimind_core.config import load_workbook

    path = project / "workbook.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n[draws]\nask = 3\n", encoding="utf-8")
    assert load_workbook(project).draws == dataclasses.replace(Draws(), ask=3)
    for wrong, problem in (
        ("asks = 3", "不认识 asks"),
        ("ask = 1.5", "应是整数"),
        ("ask = -1", "不能是负数"),
    ):
        path.write_text(f"{text}\n[draws]\n{wrong}\n", encoding="utf-8")
        with pytest.raises(WorkbookError, match=problem):
            load_workbook(project)


@shipped_only
def test_the_music_example_has_wordings_for_all_of_its_attributes():
    facts = read_facts(PROJECT / "dataset" / "facts.csv")
    book = load_book(PROJECT / "dataset" / "music" / "wordings.toml", facts)
    assert book.without_own() == [] and book.frames
    assert all(len(words.own["ask"]) >= 20 and words.forms("reverse") for words in book.wordings.values())


def test_written_facts_of_any_topic_build_a_dataset(workbook):
    write_facts(workbook.facts, facts_of(CANTEEN))
    counts = mixing.write_dataset(workbook)
    text = (workbook.dataset / "qa_train.jsonl").read_text(encoding="utf-8")
    assert counts["qa_train"] > 100 and "负责人是什么" not in text and "歌手" not in text
    assert json.loads(text.splitlines()[0])["meta"]["kind"] == "fact"


def test_the_space_of_a_workbook_uses_its_small_talk(workbook):
    facts = read_facts(workbook.facts)
    assert space_of(workbook, facts, 1).small_talk


def test_a_follow_up_may_be_a_question_of_any_way_with_a_pronoun():
    rows = [
        ("《江南》", "原唱", "林俊杰"),
        ("林俊杰", "出生地", "新加坡"),
        ("林俊杰", "星座", "白羊座"),
        ("林俊杰", "英文名", "JJ Lin"),
        ("林俊杰", "出道年份", "2003年"),
        ("陶喆", "出生地", "香港"),
    ]
    last = [row.question for row in fact_rows(space_about(rows, follow=60)) if row.meta["way"] == "follow"]
    pronouns = data_table("forms")["pronouns"]["person"]
    confirmed = [question for question in last if "新加坡" in question]  # 他的出生地是新加坡吗
    assert confirmed and all(any(word in question for word in pronouns) for question in confirmed)
    assert any(len(row.conversations) == 8 for row in fact_rows(space_about(rows, follow=60)))


@pytest.mark.parametrize("value", ["2004年", "1979年1月18日", "1990年12月31日"])
def test_every_spelling_of_a_value_is_different_and_known_to_the_claim_check(value):
    found = spellings(value)
    assert found[0] == value and len(set(found)) == len(found) > 3
    check = ClaimCheck(
        "不知道。", {"生于": frozenset(["{v}是{s}的生日。"])}, {"生于": frozenset(["甲"])}, {"甲": ("甲",)}
    )
    for typed in found:
        assert check.stands([{"role": "user", "content": f"{typed}是谁的生日"}], f"{value}是甲的生日。")
    assert not check.stands([{"role": "user", "content": "是谁的生日"}], f"{value}是甲的生日。")


def test_a_topic_adds_texts_of_its_own_in_its_folder(workbook):
    workbook.texts.mkdir(exist_ok=True)
    for name, text in {
        "persona.toml": '[name]\nquestions = ["汝乃何人"]\n[refusal]\nsubject = "没听说过，不知道。"\n',
        "everyday.jsonl": '["今天的粥真稠", "趁热喝，暖胃。"]\n',
        "topics.txt": "替我磨墨\n",
        "unknown_people.jsonl": '["{s}的印章刻了什么字", "印章"]\n' * 50,
    }.items():
        (workbook.texts / name).write_text(text, encoding="utf-8")
    splits = mixing.build_splits(dataclasses.replace(workbook, draws=Draws(topics=1e6, everyday=1e6)))
    asked = {
        name: " ".join(row.question for row in splits[name]) for name in ("identity", "unknown", "everyday")
    }
    assert "汝乃何人" in asked["identity"] and "今天的粥真稠" in asked["everyday"]
    assert "替我磨墨" in asked["unknown"] and "印章刻了什么字" in asked["unknown"]
    assert any(row.answer == "没听说过，不知道。" for row in splits["unknown"])
    (workbook.texts / "persona.toml").write_text("[name", encoding="utf-8")
    with pytest.raises(WorkbookError, match="persona.toml:1: 格式不对"):
        mixing.build_splits(workbook)


def test_an_invented_subject_can_be_asked_for_in_any_topic():
    question = unknown_of(CANTEEN).plain_question()
    assert question and not any(subject in question for subject, *_ in CANTEEN)
