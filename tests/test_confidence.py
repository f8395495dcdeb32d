import dataclasses
import json

import pytest

from minimind_core.collection.facts import Fact, write_facts
from minimind_core.conversations import identity
from minimind_core.conversations.mixing import dataset_file, write_dataset
from minimind_core.conversations.questions import load_carriers
from minimind_core.conversations.schema import read_conversations
from minimind_core.evaluation import confidence
from minimind_core.evaluation.generation import Answer, Decoding
from minimind_core.evaluation.guard import Guard, cues, plain_guard

ANYTHING = frozenset({""})  # stands in every question
GUARD = Guard(
    "不知道。",
    dict.fromkeys(("{s}出生于{v}。", "{v}是{s}的英文名。", "{s}是{v}的歌。", "{s}的{a}是{v}。"), ANYTHING),
    floor=0.5,
    reverse_floor=0.2,
    least=0.1,
)


def said(*texts):
    """A dialogue whose last message is the user's."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize(("question", "answer", "passes"), [
    ("周杰伦哪天出生", "周杰伦出生于1979年1月18日。", True),
    ("梁心怡哪天出生", "梁静茹出生于1978年6月16日。", False),  # somebody else
    ("谁的英文名是Jay Chou？", "jay chou是周杰伦的英文名。", True),  # the value was given
    ("谁的英文名是Jay Chou？", "Leehom Wang是王力宏的英文名。", False),
    ("谁的英文名是Jay Chou？", "周杰伦的英文名是Jay Chou。", True),
    ("《半夏》是谁的歌", "《半岛铁盒》是周杰伦的歌。", False),
    ("《 江南 》是谁的歌", "《江南》是林俊杰的歌", True),
    ("《天天想你》是谁的歌", "《天天》是陶喆的歌。", False),  # a title is compared whole
    ("就是不知道谁唱的", "《就是我》是王力宏的歌。", False),
    ("周杰伦的血型", "梁静茹的血型是钢琴。", False),  # whatever the attribute
    ("今天天气怎么样", "我是小音，一个音乐问答助手。", True),  # no statement about the topic
])  # fmt: skip
def test_a_statement_about_something_else_is_held_back(question, answer, passes):
    assert GUARD.passes(said(question), answer, 0.9) is passes


def test_a_name_may_stand_earlier_in_the_dialogue():
    assert GUARD.passes(said("周杰伦哪天出生", "周杰伦出生于1979年1月18日。", "英文名呢？"), "周杰伦的英文名是Jay Chou。", 0.9)


@pytest.fixture
def taught(workbook):
    """The guard of a table with two people, a song and an attribute without wordings of its own."""
    facts = [("张杰", "星座", "射手座"), ("王力宏", "国籍", "美国"), ("《毕业的生日》", "原唱", "张杰"), ("王力宏", "出生日期", "1976年5月17日")]
    write_facts(workbook.facts, [Fact(*fact, "https://example.org", "2026-01-01") for fact in facts])
    return plain_guard(workbook)


@pytest.mark.parametrize(("question", "answer", "passes"), [
    ("打听一下张杰的星座", "张杰的星座是射手座。", True),
    ("打听一下张杰的护照号码", "张杰的星座是射手座。", False),  # another attribute than was asked for
    ("王力宏国籍", "王力宏的国籍是美国。", True),
    ("王力宏國籍", "王力宏的国籍是美国。", True),
    ("谁是毕业生？", "《毕业的生日》是张杰的歌。", False),
    ("《毕业的生日》谁唱的", "《毕业的生日》是张杰的歌。", True),
    ("《毕业的生日》的拍号", "王力宏出生于1976年5月17日。", False),
    ("《毕业的生日》的拍号", "《毕业的生日》出生于1976年5月17日。", False),  # the title asks for nothing
    ("张杰的身高是多少", "张杰的身高是射手座。", False),  # an attribute that no fact has
    ("《毕业的生日》的吉他手是什么", "《毕业的生日》是张杰的歌。", False),  # words that join others ask for nothing
    ("王力宏的出生日期", "王力宏出生于1976年5月17日。", True),
    ("王力宏的订婚日期", "王力宏出生于1976年5月17日。", False),  # a word that unknown attributes share asks for nothing by itself
])  # fmt: skip
def test_a_statement_has_to_be_what_was_asked_for(taught, question, answer, passes):
    assert taught.passes(said(question), answer, 1.0) is passes


def test_only_the_last_question_asks(taught):
    assert not taught.passes(said("张杰是什么星座", "张杰的星座是射手座。", "身高呢"), "张杰的星座是射手座。", 1.0)
    assert taught.passes(said("张杰的身高", "抱歉，这个我不知道。", "星座呢"), "张杰的星座是射手座。", 1.0)


@pytest.mark.parametrize(("question", "passes"), [
    ("张杰王是什么星座", False), ("王张杰是什么星座", False), ("请问张杰是什么星座", True), ("张杰是什么星座", True), ("张杰 星座", True), ("歌手张杰，什么星座", True), ("张杰力和张杰的星座", True),
])  # fmt: skip
def test_a_name_is_not_found_in_a_longer_one(taught, question, passes):
    assert taught.passes(said(question), "张杰的星座是射手座。", 1.0) is passes


def test_every_taught_way_of_asking_is_known(workbook):
    write_dataset(workbook)
    guard = plain_guard(workbook)
    rows = [row for name in ("music_qa_train", "music_qa_valid", "music_qa_test") for row in read_conversations(dataset_file(workbook, name))]
    assert rows and all(guard.about(row.messages[:-1], row.answer) for row in rows)


def test_cues_are_pairs_of_characters_and_whole_words():
    assert cues(["{s}的生日", "When was {s} born？"]) == {"生日", "when", "was", "born"}
    assert cues(["{s}的歌手是谁唱", "目的"]) == {"歌手", "谁唱", "目的"}  # what joins words is left out


@pytest.mark.parametrize(("form", "answer", "stated"), [
    ("{s}是{v}的歌。", "《爱我还是他》是陶喆的歌。", ("《爱我还是他》", "陶喆")),
    ("{s}收录在专辑{v}中。", "《江南》收录在专辑《第二天堂》中。", ("《江南》", "《第二天堂》")),
    ("《{v}》是{s}的首张专辑。", "《Jay》是周杰伦的首张专辑。", ("周杰伦", "Jay")),
    ("{s}，{s}出生于{v}。", "王菲，王菲出生于1969年8月8日。", ("王菲", "1969年8月8日")),
    ("{s}，{s}出生于{v}。", "王菲，那英出生于1969年8月8日。", None),
    ("{s}是{v}的歌。", "抱歉，这个我不知道。", None),
])  # fmt: skip
def test_a_statement_is_taken_apart(form, answer, stated):
    assert Guard("不知道。", {form: ANYTHING}).stated(answer) == (stated and (*stated, ANYTHING))


def test_what_the_model_says_of_itself_is_no_statement(workbook):
    forms = {"answers": ["{s}是{v}。"], "train": ["{s}何时生"], "valid": ["{s}生日？"], "held_out": ["{s}几岁生"], "family": ["{s}生于__"]}
    text = '["出生日期"]\n' + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in forms.items())
    (workbook.dataset / "wordings.toml").write_text(text, encoding="utf-8")
    guard = plain_guard(workbook)
    assert "{s}是{v}。" not in guard.forms and "{s}的{a}是{v}。" in guard.forms
    for intent in identity.INTENTS:
        assert guard.stated(identity.identity_answer(intent, workbook.persona)) is None


def test_how_probable_an_answer_has_to_be_depends_on_what_it_states():
    assert not GUARD.passes(said("周杰伦哪天出生"), "周杰伦出生于1979年1月18日。", 0.49)
    assert GUARD.passes(said("周杰伦哪天出生"), "周杰伦出生于1979年1月18日。", 0.5)
    for chance in (0.19, 0.2):  # a name that was asked for by the value
        assert GUARD.passes(said("谁的生日是1979年1月18日"), "周杰伦出生于1979年1月18日。", chance) is (chance == 0.2)
    for chance in (0.09, 0.1):
        assert GUARD.passes(said("你是谁"), "我是小音。", chance) is (chance == 0.1)


@pytest.fixture
def asked(workbook, monkeypatch):
    """Calibrates a run whose answer to a validation row is told by a function of the row and its number."""
    write_facts(workbook.facts, [Fact(f"人{i}", "星座", f"座{i}", "https://example.org", "2026-01-01") for i in range(100)])
    write_dataset(workbook)
    monkeypatch.setattr(confidence, "load_run", lambda *_: (None, None))

    def calibrate(answer):
        rows = [row for rows in confidence.validation_suites(workbook).values() for row in rows]
        monkeypatch.setattr(confidence, "generate", lambda *_: [Answer(*answer(n, row)) for n, row in enumerate(rows)])
        return confidence.calibrate(workbook, "main")

    return calibrate


def statement(row, chance):
    """A right answer to what is known, a made-up one about the subject that was asked for to what is not."""
    return (row.answer if row.meta["kind"] == "music" else f"{row.question[-4:]}的星座是座1。"), 3, True, chance


def test_the_floor_is_well_below_all_right_statements(workbook, asked):
    found = asked(lambda n, row: statement(row, (n + 1) / 1000 if row.meta["kind"] == "music" else 0.9))
    right = sorted(chance for chance, good, reverse in found["chances"] if good and not reverse)
    assert found["right"] == found["asked"] == len(right) and found["refused"] == 0 < found["unknown"]
    assert found["floor"] == pytest.approx(confidence.MARGIN * right[0], rel=0.01)
    decoding = confidence.careful(workbook, "main", Decoding(max_new_tokens=9))
    assert decoding.max_new_tokens == 9 and decoding.guard.floor == found["floor"] and decoding.guard.fallback == "抱歉，这个我不知道。"
    assert "{s}的星座是{v}。" in decoding.guard.forms
    sampled = confidence.careful(workbook, "main", Decoding(temperature=0.5))
    assert sampled.guard == dataclasses.replace(decoding.guard, floor=None, reverse_floor=None, least=0)


def test_answers_from_value_to_subject_have_a_floor_of_their_own(workbook, asked):
    assert asked(lambda n, row: statement(row, 0.9))["reverse_floor"] == 0.9 * confidence.MARGIN  # there are none here
    write_facts(workbook.facts, [Fact(f"人{i}", "英文名", f"Nobody{i}", "https://example.org", "2026-01-01") for i in range(100)])
    write_dataset(workbook)
    found = asked(lambda n, row: statement(row, 0.3 if row.meta.get("way") == "reverse" else 0.9))
    guard = confidence.careful(workbook, "main").guard
    assert (found["floor"], found["reverse_floor"]) == (0.9 * confidence.MARGIN, 0.3 * confidence.MARGIN) == (guard.floor, guard.reverse_floor)


def test_too_few_right_answers_set_no_floor(workbook, asked):
    assert asked(lambda n, row: statement(row, 0.9) if n < 10 else ("不对", 3, True, 0.9))["floor"] is None
    assert confidence.careful(workbook, "main").guard.floor is None


def test_a_run_that_was_never_calibrated_says_what_it_thinks(workbook):
    assert confidence.careful(workbook, "other", Decoding(max_new_tokens=5)).guard is None


def test_only_what_is_like_a_taught_question_about_the_model_asks_about_it(workbook, asked):
    asked(lambda n, row: statement(row, 0.9))
    guard = confidence.careful(workbook, "main").guard
    about_itself = lambda question: guard.asks_about_itself([{"role": "user", "content": question}])
    assert all(map(about_itself, ("你是谁？", "那个，你到底是谁啊", "WHO are you")))
    assert not any(map(about_itself, ("周杰伦的出生日期是什么？", "怎么做红烧肉", "？", "xyzzy")))
    assert (guard.likeness("你叫什么名字？")[0], guard.likeness("明天天气怎么样")[1]) == pytest.approx((1, 1))
    misplaced = lambda question: guard.misplaced([{"role": "user", "content": question}], guard.itself[0])
    assert all(map(misplaced, ("明天天气怎么样啊", "“cloud”是什么意思", "人7的星座是____，请填空"))) and not any(
        map(misplaced, ("你谁啊", "周杰伦的星座", "xyzzy"))
    )
    assert not guard.passes([{"role": "user", "content": "明天天气怎么样啊"}], guard.itself[0], 1.0)
    assert guard.passes([{"role": "user", "content": "你谁啊"}], guard.itself[0], 1.0)


def test_facts_and_wordings_are_read_again_only_when_they_change(workbook):
    first = confidence.careful(workbook, "other").likely
    assert confidence.careful(workbook, "other").likely is first
    write_facts(workbook.facts, [Fact("王力宏", "星座", "金牛座", "https://example.org", "2026-01-01")])
    second = confidence.careful(workbook, "other").likely
    assert "王力宏的星座是金牛座。" in second and "王力宏的星座是金牛座。" not in first
    forms = {"answers": ["{s}属{v}。"], "train": ["{s}属啥"], "valid": ["{s}星座？"], "held_out": ["{s}啥座"], "family": ["{s}属__"]}
    text = '["星座"]\n' + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in forms.items())
    (workbook.dataset / "wordings.toml").write_text(text, encoding="utf-8")
    assert "王力宏属金牛座。" in confidence.careful(workbook, "other").likely


def test_validation_questions_stand_amid_words_that_are_never_taught(workbook):
    write_dataset(workbook)
    carriers = load_carriers("valid")
    assert not set(carriers) & set(load_carriers("carriers"))
    ends = [tuple(carrier.split("{q}")) for carrier in carriers]
    suites = confidence.validation_suites(workbook)
    for rows in suites.values():
        assert rows and all(any(row.question.startswith(a) and row.question.endswith(b) for a, b in ends) for row in rows)
    assert all(len(row.conversations) == 4 for row in suites["music_follow"])
