"""What README and report say comes from report/results, and the shipped run is really better than the base."""

import json

import pytest
from conftest import PROJECT, load_script

from minimind_core.config import load_workbook
from minimind_core.evaluation.experiments import in_group
from minimind_core.evaluation.metrics import wilson

RESULTS = PROJECT / "report" / "results"


def load(name: str):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "language"), [("README.md", 0), ("README_en.md", 1)])
def test_readme_tables_are_made_from_the_results(name, language):
    module = load_script("update_readme")
    text = (PROJECT / name).read_text(encoding="utf-8")
    for mark, content in (("results", module.table), ("ablation", module.ablation), ("seeds", module.seeds), ("speed", module.speed)):
        assert module.fill(text, mark, content(PROJECT, language)) == text
    assert len(in_group(load_workbook(PROJECT), "ablation")) == len(module.STEPS)


@pytest.mark.parametrize("suite", ["identity", "music_seen", "music_held_out", "refusal"])
def test_main_beats_the_base_beyond_its_interval(suite):
    base, main = (load(f"run_{name}.json")["scores"][suite] for name in ("base", "main"))
    assert base["n"] == main["n"] and main["low"] > base["high"]


def test_scores_are_the_count_of_the_kept_answers():
    for name in ("base", "main"):
        result = load(f"run_{name}.json")
        for suite in ("identity", "music_seen", "music_held_out", "refusal"):
            answers = [a for a in result["answers"] if a["suite"] == suite]
            score = result["scores"][suite]
            assert (score["right"], score["n"]) == (sum(a["right"] for a in answers), len(answers))
            assert (score["low"], score["high"]) == pytest.approx(wilson(score["right"], score["n"]))


def test_model_card_figures_come_from_its_file():
    facts = json.loads((PROJECT / "weights" / "base" / "training.json").read_text(encoding="utf-8"))
    card = (PROJECT / "weights" / "base" / "README.md").read_text(encoding="utf-8")
    for value in (*(f"{s['tokens']:,}" for s in facts["stages"]), *(f"{v:.3f}" for v in facts["held_out_bits_per_byte"].values())):
        assert value in card
