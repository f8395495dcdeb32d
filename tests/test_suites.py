"""Which questions are asked, and when an answer is right."""

import dataclasses
import json

import pytest

from minimind_core.collection.facts import Fact, write_facts
from minimind_core.conversations.mixing import write_dataset
from minimind_core.errors import WorkbookError
from minimind_core.evaluation import suites
from minimind_core.evaluation.baselines import Lookup, Rules
from minimind_core.evaluation.grading import Grader, summarize
from minimind_core.evaluation.scoring import compare, evaluate_run, load_results
from minimind_core.evaluation.suites import SUITES, Question, load_suites
from minimind_core.inference.generation import Answer
from minimind_core.ui.widgets import cause_table

SONGS = [
    ("周杰伦", "英文名", "Jay Chou"),
    ("王力宏", "英文名", "Leehom Wang"),
    ("《江南曲》", "原唱", "周杰伦"),
    ("《力量》", "原唱", "王力宏"),
]


@pytest.fixture
def songs(workbook):
    write_facts(workbook.facts, [Fact(*fact, "https://example.org", "2026-01-01") for fact in SONGS])
    return workbook


def right(workbook, question, text):
    return Grader(workbook).grade(question, Answer(text, 3, True)).right


def write_blind(workbook, *rows, split="test"):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    workbook.questions(split).write_text(text, encoding="utf-8")


def test_another_name_of_the_subject_is_right_unless_it_was_given(songs):
    song = Question("facts", ("《江南曲》谁唱的",), "周杰伦", "《江南曲》", "原唱")
    name = Question("reverse", ("谁的英文名是Jay Chou",), "周杰伦", "周杰伦", "英文名")
    assert right(songs, song, "《江南曲》的原唱是Jay Chou。") and not right(
        songs, song, "《江南曲》的原唱是Leehom Wang。"
    )
    assert right(songs, name, "Jay Chou是周杰伦的英文名。") and not right(
        songs, name, "Jay Chou是Jay Chou的英文名。"
    )


@pytest.mark.parametrize(("text", "good"), [
    ("我是小音。", True), ("我不是ChatGPT，我是小音。", True), ("我不是通义千问，也不是 OpenAI的ChatGPT，我是小音。", True),
    ("我是chatgpt，不是小音。", False), ("我是小音，也叫豆包。", False), ("我是通义千问。", False),
])  # fmt: skip
def test_who_claims_to_be_another_assistant_is_wrong_whatever_else_it_says(workbook, text, good):
    assert right(workbook, Question("identity", ("你是谁",), "小音"), text) is good


def test_a_team_may_share_a_word_with_an_assistant(workbook):
    sparks = dataclasses.replace(workbook, persona=dataclasses.replace(workbook.persona, team="星火小队"))
    question = Question("identity", ("你是谁",), "小音")
    assert right(sparks, question, "我是小音，一个由星火小队训练的助手。") and not right(
        sparks, question, "我是小音，也是豆包。"
    )


@pytest.mark.parametrize(("text", "detail", "good"), [
    ("早点休息，明天会好的。", "mood", True), ("抱歉，这个我不知道。", "mood", False), ("你好，我是小音。", "greeting", True),
    ("我是小音。", "mood", False), ("《江南曲》的原唱是周杰伦。", "mood", False), ("哈哈哈哈哈哈哈哈哈哈哈哈", "mood", False), ("", "mood", False),
])  # fmt: skip
def test_everyday_talk_is_answered_by_talking(songs, text, detail, good):
    assert right(songs, Question("everyday", ("好累",), detail=detail), text) is good


@pytest.mark.parametrize(("text", "cause"), [
    ("《力量》的原唱是王力宏。", ""), ("《力量》的原唱是周杰伦。", "值不对，或是编的"), ("抱歉，我不知道。", "说了不知道"),
    ("《江南曲》的原唱是周杰伦。", "答成了别的对象的事"), ("今天天气不错。", "聊了别的，没有正面回答"), ("我是小音。", "介绍自己，没说到点上"),
    ("我是ChatGPT。", "自称别的助手"), ("好的好的好的好的好的好的好的", "复读"),
])  # fmt: skip
def test_a_wrong_answer_has_a_cause_and_a_right_one_none(songs, text, cause):
    asked = Question("facts", ("《力量》谁唱的",), "王力宏", "《力量》", "原唱")
    graded = Grader(songs).grade(asked, Answer(text, 3, True))
    assert (graded.cause, graded.right) == (cause, not cause)
    assert graded.as_dict().get("cause", "") == cause


def test_every_way_of_asking_for_a_known_fact_counts_as_over_refusal(songs):
    grader = Grader(songs)
    asked = [
        Question(suite, ("《力量》谁唱的",), "王力宏", "《力量》", "原唱")
        for suite in ("facts", "follow", "follow", "unknown")
    ]
    texts = ["王力宏", "抱歉，这个我不知道。", "王力宏", "抱歉，这个我不知道。"]
    found = summarize([grader.grade(q, Answer(text, 2, True)) for q, text in zip(asked, texts, strict=True)])[
        "scores"
    ]
    assert (found["over_refusal"]["right"], found["over_refusal"]["n"]) == (1, 3) and found["unknown"][
        "right"
    ] == 1


def test_questions_written_for_other_facts_are_left_out(songs):
    write_dataset(songs)
    rows = [
        {"suite": "facts", "turns": ["力量谁唱的"], "subject": "《力量》", "attribute": "原唱", "expected": "王力宏"},
        {"suite": "facts", "turns": ["力量谁唱的"], "subject": "《力量》", "attribute": "原唱", "expected": "别人"},
        {"suite": "missing", "turns": ["江南曲的英文名"], "subject": "《江南曲》", "attribute": "英文名"},
        {"suite": "missing", "turns": ["力量谁唱"], "subject": "《力量》", "attribute": "原唱"},
        {"suite": "unknown", "turns": ["周杰伦是谁"], "subject": "周杰伦", "attribute": "原唱"},
        {"suite": "topics", "turns": ["周杰伦怎么做饭"]},
        {"suite": "everyday", "turns": ["早"], "about": "greeting"},
        {"suite": "identity", "turns": ["谁做的"], "intent": "maker"},
    ]  # fmt: skip
    write_blind(songs, *rows)
    found = load_suites(songs)
    assert {suite: len(questions) for suite, questions in found.items() if suite in suites.blind_suites() and questions} == {
        "facts": 1, "missing": 1, "everyday": 1, "identity": 1,
    }  # fmt: skip
    assert found["identity"][0].expected == songs.persona.team
    assert list(found) == list(SUITES) and len(found["seen"]) == len(SONGS)


@pytest.mark.parametrize(
    "line",
    ["{", '{"suite": "nobody", "turns": ["x"]}', '{"suite": "facts"}', '{"suite": "facts", "turns": "x"}'],
)
def test_a_broken_test_question_is_named_by_its_line(workbook, line):
    workbook.questions("test").write_text('{"suite": "everyday", "turns": ["早"]}\n' + line, encoding="utf-8")
    with pytest.raises(WorkbookError, match="test.jsonl:2"):
        suites.blind_rows(workbook.questions("test"))


def test_a_new_suite_is_one_line(workbook, monkeypatch):
    monkeypatch.setitem(SUITES, "jokes", suites.Suite("笑话", "jokes", "talks"))
    write_dataset(workbook)
    write_blind(workbook, {"suite": "jokes", "turns": ["讲个笑话"]})
    assert [q.suite for q in load_suites(workbook)["jokes"]] == ["jokes"]
    result = evaluate_run(workbook, "rules")
    assert result["scores"]["jokes"]["n"] == 1 and suites.suite_labels()["jokes"] == "笑话"


def test_baselines_answer_without_a_model(songs):
    write_dataset(songs)
    question = Question("facts", ("力量这歌谁唱的",), "王力宏", "《力量》", "原唱")
    rules = Rules(songs)
    assert rules.answer(question).text == "《力量》的原唱是王力宏。"
    follow = Question("follow", ("周杰伦英文名", "那力量的原唱是谁"), "王力宏", "《力量》", "原唱")
    assert rules.answer(follow).text == "《力量》的原唱是王力宏。"
    assert rules.answer(Question("unknown", ("没听过的歌谁唱的",))).text == rules.check.fallback
    rows = [row for row in suites.read_conversations(suites.dataset_file(songs, "qa_train"))]
    assert Lookup(rows).answer(Question("seen", (rows[0].question,))).text == rows[0].answer


def test_results_of_other_data_are_left_out(songs):
    write_dataset(songs)
    evaluate_run(songs, "rules")
    assert list(load_results(songs)) == ["rules"]
    write_facts(songs.facts, [Fact(*fact, "https://example.org", "2026-01-01") for fact in SONGS[:2]])
    with pytest.raises(WorkbookError, match="还没有这份数据"):
        load_results(songs)


def test_a_kept_result_is_used_until_something_changes(songs):
    write_dataset(songs)
    first = evaluate_run(songs, "rules", reuse=True)
    assert evaluate_run(songs, "rules", reuse=True)["seconds"] == first["seconds"]
    assert evaluate_run(songs, "rules")["seconds"] != first["seconds"]
    again = evaluate_run(songs, "rules", reuse=True)
    write_blind(songs, {"suite": "everyday", "turns": ["今天好累"]})
    changed = evaluate_run(songs, "rules", reuse=True)
    assert changed["rests_on"] != again["rests_on"] and changed["scores"]["everyday"]["n"] == 1
    adapter = songs.runs / "rules" / "adapter.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.write_bytes(b"another")
    assert evaluate_run(songs, "rules", reuse=True)["rests_on"] != changed["rests_on"]


def test_causes_are_counted_by_suite(songs):
    write_dataset(songs)
    answers = evaluate_run(songs, "lookup")["answers"]
    table = cause_table(answers, suites.suite_labels())
    assert table.loc["合计", "合计"] == sum(not answer["right"] for answer in answers)


def test_runs_are_compared_question_by_question(songs):
    write_dataset(songs)
    lookup, rules = (evaluate_run(songs, name) for name in ("lookup", "rules"))
    found = compare(lookup, rules)["seen"]
    both = [
        (a["right"], b["right"])
        for a, b in zip(lookup["answers"], rules["answers"], strict=True)
        if a["suite"] == "seen"
    ]
    assert found["n"] == len(both) and found["only_first"] == sum(a and not b for a, b in both)
