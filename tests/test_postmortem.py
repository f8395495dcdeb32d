from minimind_core.conversations.mixing import write_dataset
from minimind_core.evaluation.metrics import share_of
from minimind_core.evaluation.suites import SUITES
from minimind_core.experiments import postmortem
from minimind_core.training.runs import prepare_run


def test_stock_minimind_saves_nothing_in_an_epoch_shorter_than_its_interval(workbook):
    found = [list(postmortem.stock_epoch(workbook, steps, interval=3).values()) for steps in (2, 3, 4)]
    assert found == [[2, False, False], [3, True, True], [4, True, False]]


def test_an_adapter_loads_on_another_base_and_says_something_else(workbook):
    write_dataset(workbook)
    run = prepare_run(workbook, "main", "smoke")
    list(run.train())
    rows = postmortem.on_another_base(workbook, "main", ["你是谁？", "你好"], change=2.0)
    assert [row["问题"] for row in rows] == ["你是谁？", "你好"]
    assert [row["自己的基座"] for row in rows] != [row["另一个基座"] for row in rows]


def test_a_sentence_names_what_moved_beyond_chance_and_nothing_else():
    def result(identity: int, talk: float = 1.5) -> dict:
        right = dict.fromkeys((*SUITES, "over_refusal", "ended", "repetition"), 20) | {"identity": identity}
        scores = {key: share_of([i < count for i in range(40)]) for key, count in right.items()}
        return {
            "about": "打乱",
            "lesson": "要打乱",
            "run": {"train_seconds": 60},
            "scores": scores,
            "everyday_loss": talk,
        }

    (text,) = postmortem.effects({"a1": result(36), "a0": result(8)})
    assert "要打乱" in text and "20% → 90%" in text and text.count("→") == 2
    assert "都有重叠" in postmortem.effects({"a0": result(20), "a1": result(24)})[0]
    assert "日常话的损失 1.50 → 1.20" in postmortem.effects({"a0": result(20), "a1": result(20, 1.2)})[0]
    assert "日常话" not in postmortem.effects({"a0": result(20), "a1": result(20, 1.4)})[0]
