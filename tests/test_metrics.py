import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind_core.evaluation.metrics import bootstrap, is_right, refuses, repeats, share_of, wilson
from minimind_core.texts import normalize


@pytest.mark.parametrize(("first", "second"), [
    ("1979年01月18日", "1979-01-18"), ("1979年1月18日", "1979.1.18"), ("《范特西》", "范特西"), ("ＪＪ Ｌｉｎ", "jj lin"), ("哎呦，不错哦", "哎呦不错哦"),
    ("張學友的《餓狼傳說》", "张学友的饿狼传说"),
])  # fmt: skip
def test_equal_writings(first, second):
    assert normalize(first) == normalize(second)


def test_numbers_stay_whole():
    assert normalize("3.5") != normalize("35")
    assert not is_right("共15首", "5首") and is_right("共5首。", "5首")


def test_different_dates_stay_different():
    assert normalize("1979年1月18日") != normalize("1979年11月8日")


@pytest.mark.parametrize(("answer", "right"), [
    ("《江南》是林俊杰的歌。", True), ("《江南》是陶喆的歌。", False), ("是林俊杰或者陶喆的歌。", False), ("抱歉，我不知道林俊杰。", False), ("", False),
])  # fmt: skip
def test_only_the_one_right_candidate_counts(answer, right):
    assert is_right(answer, "林俊杰", ["林俊杰", "陶喆", "周杰伦"]) is right


def test_a_rival_inside_the_expected_value_is_no_rival():
    assert is_right("收录在专辑《依然范特西》中", "《依然范特西》", ["《范特西》", "《依然范特西》"])
    assert not is_right("收录在专辑《依然范特西》中", "《范特西》", ["《范特西》", "《依然范特西》"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("知道呀知道呀知道呀知道呀", True), ("周杰伦出生于1979年1月18日。", False), ("", False)],
)
def test_repetition(answer, expected):
    assert repeats(answer) is expected


def test_refusal_words():
    assert refuses("抱歉，这个我不知道。") and not refuses("周杰伦出生于台湾。")


def test_wilson_by_hand():
    low, high = wilson(9, 10)
    assert (low, high) == (pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share_and_narrows_with_n(total, data):
    right = data.draw(st.integers(0, total))
    low, high = wilson(right, total)
    assert 0 <= low <= right / total <= high <= 1
    wide = wilson(right * 4, total * 4)
    assert wide[1] - wide[0] < high - low


def test_naming_the_subject_is_no_answer():
    assert not is_right("陶喆的首张专辑是《乐行者》。", "陶喆", ["陶喆", "乐行者", "Jay"], "陶喆")
    assert is_right("陶喆的首张专辑是《陶喆》。", "陶喆", ["陶喆", "乐行者", "Jay"], "陶喆")
    assert is_right("《陶喆》是陶喆的专辑。", "陶喆", ["陶喆", "林俊杰"], "《陶喆》")


def test_questions_of_one_template_are_no_independent_trials():
    rights, templates = [True] * 100 + [False] * 100, ["a"] * 100 + ["b"] * 100
    low, high = bootstrap(rights, templates)
    assert (low, high) == (0.0, 1.0)  # two templates, one of them wrong: nothing is known
    assert share_of(rights, templates)["low"] == 0.0 and share_of(rights)["low"] > 0.4
    assert share_of([], [])["n"] == 0 and share_of([True, False], ["a", "b"]) == share_of([True, False])
