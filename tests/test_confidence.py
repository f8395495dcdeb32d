import dataclasses

import pytest

from minimind_core.collection.facts import Fact, write_facts
from minimind_core.conversations.mixing import write_dataset
from minimind_core.evaluation import confidence
from minimind_core.evaluation.generation import Answer, Decoding


@pytest.fixture
def asked(workbook, monkeypatch):
    """Calibrates a run whose n-th answer has the n-th chance and is right as told."""
    write_facts(workbook.facts, [Fact(f"人{i}", "星座", f"座{i}", "https://example.org", "2026-01-01") for i in range(100)])
    write_dataset(workbook)
    monkeypatch.setattr(confidence, "load_run", lambda *_: (None, None))

    def calibrate(judged):
        def answer(*_):
            rows = confidence.validation_rows(workbook)
            pairs = zip(rows, judged, strict=True)
            return [Answer(row.meta["expected"] if right else "不对", 3, True, chance) for row, (chance, right) in pairs]

        monkeypatch.setattr(confidence, "generate", answer)
        return confidence.calibrate(workbook, "main")

    return calibrate


def test_the_floor_lies_a_margin_below_nearly_all_right_answers(workbook, asked, monkeypatch):
    judged = [(0.5 + i / 300, True) for i in range(90)] + [(0.1, False)] * 10
    monkeypatch.setattr(confidence, "LOWEST", 0.1)
    found = asked(judged)
    assert found["floor"] == confidence.MARGIN * (0.5 + 9 / 300)  # nine of ninety lie below that probability
    assert found["right"] == 90 and found["asked"] == 100
    decoding = confidence.careful(workbook, "main", Decoding(max_new_tokens=9))
    assert decoding == dataclasses.replace(Decoding(max_new_tokens=9), floor=found["floor"], fallback="抱歉，这个我不知道。")
    assert confidence.careful(workbook, "main", Decoding(temperature=0.5)) == Decoding(temperature=0.5)


def test_too_few_right_answers_set_no_floor(workbook, asked):
    assert asked([(0.9, True)] * 10 + [(0.9, False)] * 90)["floor"] is None
    assert confidence.careful(workbook, "main") == Decoding()


def test_a_run_that_was_never_calibrated_says_what_it_thinks(workbook):
    assert confidence.careful(workbook, "other", Decoding(max_new_tokens=5)) == Decoding(max_new_tokens=5)
