from minimind_core.collection.facts import Fact, write_facts
from minimind_core.conversations.schema import dialogue
from minimind_core.evaluation.generation import Answer
from minimind_core.evaluation.suites import grade_all


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
