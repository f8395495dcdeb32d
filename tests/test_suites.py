import dataclasses

from minimind_core.collection.facts import Fact, write_facts
from minimind_core.conversations.schema import dialogue
from minimind_core.evaluation.generation import Answer
from minimind_core.evaluation.scoring import not_beyond_lookup
from minimind_core.evaluation.suites import SUITES, grade_all, summarize


def test_another_name_of_the_subject_is_right_unless_it_was_given(workbook):
    facts = [("周杰伦", "英文名", "Jay Chou"), ("王力宏", "英文名", "Leehom Wang"), ("《江南曲》", "原唱", "周杰伦"), ("《力量》", "原唱", "王力宏")]
    write_facts(workbook.facts, [Fact(*fact, "https://example.org", "2026-01-01") for fact in facts])
    rows = [
        dialogue("《江南曲》谁唱的", "某人", kind="music", subject="《江南曲》", attribute="原唱", expected="周杰伦"),
        dialogue("谁的英文名是Jay Chou", "某人", kind="music", subject="周杰伦", attribute="英文名", expected="周杰伦"),
    ]

    def right(first, second):
        answers = [Answer(first, 3, True), Answer(second, 3, True)]
        return [g.right for g in grade_all(workbook, {"music_held_out": rows[:1], "music_reverse": rows[1:]}, answers)]

    assert right("《江南曲》是Jay Chou的歌。", "Jay Chou是周杰伦的英文名。") == [True, True]
    assert right("《江南曲》是Leehom Wang的歌。", "Jay Chou是Jay Chou的英文名。") == [False, False]


def test_who_claims_to_be_another_assistant_is_wrong_whatever_else_it_says(workbook):
    row = dialogue("你是谁", "我是小音。", kind="identity", intent="name", expected="小音")
    said = {
        "我是小音。": True,
        "我不是ChatGPT，我是小音。": True,
        "我不是通义千问，也不是 OpenAI的ChatGPT，我是小音。": True,
        "我是chatgpt，不是小音。": False,
        "我是小音，也叫豆包。": False,
        "我是通义千问。": False,
    }
    graded = grade_all(workbook, {"identity": [row] * len(said)}, [Answer(text, 3, True) for text in said])
    assert [g.right for g in graded] == list(said.values())
    sparks = dataclasses.replace(workbook, persona=dataclasses.replace(workbook.persona, team="星火小队"))
    answers = [Answer(text, 3, True) for text in ("我是小音，一个由星火小队训练的助手。", "我是小音，也是豆包。")]
    assert [g.right for g in grade_all(sparks, {"identity": [row] * 2}, answers)] == [True, False]


def test_every_way_of_asking_for_a_known_fact_counts_as_over_refusal(workbook):
    facts = [("《力量》", "原唱", "王力宏")]
    write_facts(workbook.facts, [Fact(*fact, "https://example.org", "2026-01-01") for fact in facts])
    row = dialogue("《力量》谁唱的", "王力宏", kind="music", subject="《力量》", attribute="原唱", expected="王力宏")
    asked = {"music_held_out": [row], "music_family": [row] * 2, "music_follow": [row]}
    answers = [
        Answer(text, tokens, True) for text, tokens in (("王力宏", 2), ("抱歉，这个我不知道。", 6), ("王力宏", 2), ("抱歉，这个我不知道。", 6))
    ]
    found = summarize(grade_all(workbook, asked, answers))
    assert [(found["scores"][key]["right"], found["scores"][key]["n"]) for key in ("over_refusal", "over_refusal_all")] == [(0, 1), (2, 4)]
    assert found["mean_tokens"] == 4


def test_a_run_that_is_no_better_than_look_up_is_told_so():
    scores = lambda right: {"scores": {suite: {"n": 10, "share": right / 10} for suite in SUITES}}
    results = {"worse": scores(6), "same": scores(7), "better": scores(8), "retrieval": scores(7)}
    untaught = [suite for suite in SUITES if suite != "music_seen"]
    assert [not_beyond_lookup(results, run) for run in ("worse", "same", "better")] == [untaught, untaught, []]
    assert not_beyond_lookup({"perfect": scores(10), "retrieval": scores(10)}, "perfect") == []
    assert not_beyond_lookup({"main": scores(5)}, "main") == []
