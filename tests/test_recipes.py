import json

import pytest
from conftest import PROJECT

from minimind_core.collection.kdconv import Dialogue, Triple
from minimind_core.conversations import recipes
from minimind_core.conversations.schema import read_conversations
from minimind_core.conversations.text_checks import text_problems
from minimind_core.errors import WorkbookError

LONG = "他出生在北方的一座小城里。后来他去了南方学习音乐。再后来他发行了第一张唱片！大家都喜欢他的歌声，一直到今天。"
DIALOGUES = [
    Dialogue(
        ("你好", "你好呀", "听歌吗"), (Triple("周杰伦", "简介", LONG), Triple("周杰伦", "生日", "1979年"))
    ),
    Dialogue(("再见", "再见"), (Triple("某人", "生日", "1980年"), Triple("周杰伦", "生日", "1979年"))),
]


def rows_of(workbook, name):
    return recipes.RECIPES[name][1](workbook, DIALOGUES)


def test_dialogues_stay_as_they_are_but_end_with_an_answer(workbook):
    assert [len(row.conversations) for row in rows_of(workbook, "music_train_for_lora")] == [2, 2]


def test_a_long_value_becomes_several_answers_to_one_question(workbook):
    rows = rows_of(workbook, "music_data2")
    assert [row.question for row in rows].count("周杰伦的简介是什么？") == 4 and len(rows) == 6
    assert "".join(row.answer for row in rows[:4]) == LONG


def test_later_versions_add_identities_shuffle_and_drop_fragments(workbook):
    plain, more = rows_of(workbook, "music_data2"), rows_of(workbook, "music_data3")
    assert more[: len(plain)] == plain and more[len(plain) :] == recipes.few_identities(workbook) * 2
    shuffled = rows_of(workbook, "music_data3_shuffled")
    assert shuffled != more and sorted(map(str, shuffled)) == sorted(map(str, more))
    fewer = rows_of(workbook, "music_data4")
    questions = [row.question for row in fewer[: -len(recipes.few_identities(workbook)) * 2]]
    assert len(set(questions)) == len(questions) == 3


def test_data5_is_fifteen_times_raw_and_four_times_identity(workbook):
    rows = rows_of(workbook, "music_data5")
    raw = [row for row in rows if row.meta["kind"] == "triple"]
    assert len(raw) == 15 * 2 and all(row.question.startswith("周杰伦") for row in raw)
    assert len(rows) - len(raw) == 4 * len(recipes.all_identities(workbook))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_builds_from_the_sample(workbook, name):
    for file in ("health.csv", "kdconv_sample.json"):
        (workbook.dataset / file).write_bytes((PROJECT / "dataset" / file).read_bytes())
    path, count = recipes.build_recipe(workbook, name)
    assert path.parent.name == "raw" and len(read_conversations(path)) == count > 0


def test_a_recipe_without_matching_content_says_so(workbook, tmp_path):
    path = tmp_path / "empty.json"
    path.write_text(json.dumps([{"messages": []}]), encoding="utf-8")
    with pytest.raises(WorkbookError, match="没有它要的内容"):
        recipes.build_recipe(workbook, "music_data2", [path])


def test_health_answers_are_many_short_and_cautious(workbook):
    (workbook.dataset / "health.csv").write_bytes((PROJECT / "dataset" / "health.csv").read_bytes())
    rows = recipes.health_rows(workbook)
    assert len(rows) >= 200 and len({row.question for row in rows}) == len(rows)
    advice = (
        "医",
        "专业",
        "药师",
        "急救",
        "热线",
        "营养师",
        "牙",
        "科",
        "体检",
        "打疫苗",
        "复查",
        "心理老师",
        "指导",
        "查",
        "检",
        "120",
        "门诊",
    )
    assert all(any(word in row.answer for word in advice) and len(row.answer) <= 45 for row in rows)
    assert not [p for row in rows for p in text_problems(row)]
