import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from minimind_core.conversations.schema import dialogue
from minimind_core.conversations.text_checks import FOREIGN
from minimind_core.evaluation import base_quality
from minimind_core.evaluation.baselines import Lookup
from minimind_core.evaluation.metrics import mcnemar
from minimind_core.evaluation.suites import Question
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.tokenizer import PAD
from minimind_core.training import pretraining

BASE = PROJECT / "weights" / "base"
DATA = PROJECT / "tests" / "data"


def lines(name: str) -> list[str]:
    return (DATA / name).read_text(encoding="utf-8").splitlines()


def test_ngram_probabilities_sum_to_one_over_known_and_unknown_characters():
    model = base_quality.NGram(["今天天气好", "今天天气不好", "好天气"])
    for context in ("", "今", "今天天气", "没见过"):
        known = {c for text in ("今天天气不好",) for c in text}
        total = sum(model.probability(context, c) for c in known)
        rest = model.probability(context, "龘") * (0x110000 - len(known))
        assert total + rest == pytest.approx(1.0, abs=1e-6)


def test_a_seen_text_costs_fewer_bits_than_a_strange_one():
    model = base_quality.NGram(["今天天气很好，我们去公园。"] * 3)
    assert model.bits_per_byte(["今天天气很好"]) < 1 < model.bits_per_byte(["龘靐齉爩"])
    assert base_quality.xz_bits_per_byte(["甲" * 4000]) < 0.5


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_symmetric_and_a_probability(a, b):
    assert 0 < mcnemar(a, b) <= 1 and mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_by_hand():
    assert mcnemar(0, 5) == pytest.approx(2 / 32) and mcnemar(3, 3) == 1.0


def test_lookup_finds_the_nearest_question():
    rows = [
        dialogue("《晴天》是谁唱的？", "周杰伦"),
        dialogue("《江南》是谁唱的？", "林俊杰"),
        dialogue("你是谁？", "小音"),
    ]
    lookup = Lookup(rows)
    assert [
        lookup.answer(Question("facts", (q,))).text for q in ("请问《江南》谁唱", "你到底是谁", "晴天")
    ] == ["林俊杰", "小音", "周杰伦"]
    assert lookup.answer(Question("facts", ("xyz",))).text in lookup.answers


@pytest.fixture(scope="module")
def base():
    model, tokenizer = load_base(BASE)
    return model.eval(), tokenizer


def test_everyday_answers_of_the_shipped_base_end_and_do_not_repeat(base):
    prompts = lines("everyday_prompts.txt")
    assert len(prompts) == len(set(prompts)) == 100
    result = base_quality.everyday(*base, prompts)
    assert result["ended"]["share"] >= 0.95 and result["repetition"]["share"] <= 0.03


def test_the_shipped_base_hardly_ever_claims_an_identity(base):
    """The filter that its corpus went through let a few long self-introductions pass; the card says so."""
    questions = lines("identity_questions.txt")
    assert len(questions) == len(set(questions)) == 50
    answers = base_quality.ask(*base, questions)
    assert sum(bool(FOREIGN.search(a.text) or pretraining.IDENTITY.search(a.text)) for a in answers) <= 5


def test_no_document_was_both_trained_on_and_held_out():
    with np.load(BASE / "documents.npz", allow_pickle=False) as hashes:
        trained, held_out = hashes["trained"], hashes["held_out"]
    assert len(trained) > 10_000 and len(held_out) > 100
    assert (held_out % np.uint64(100) == 0).all() and not np.isin(trained, held_out).any()
    # copy exercises are made, not read: their hashes may be anything
    own = trained[trained % np.uint64(100) == 0]
    assert len(own) < 0.02 * len(trained)


def corpus() -> Path:
    folder = os.environ.get("MINIMIND_CORPUS")
    if not folder:
        pytest.skip("set MINIMIND_CORPUS to the training text's folder to check the filters on it")
    return Path(folder)


@pytest.mark.slow
def test_every_trained_document_passes_the_filters():
    held_back = pretraining.names_pattern(PROJECT / "scripts" / "held_back.txt")
    documents = {d.key: d for d in pretraining.read_corpus(corpus(), held_back)}
    with np.load(BASE / "documents.npz", allow_pickle=False) as hashes:
        trained = set(hashes["trained"].tolist())
    found = [documents[key] for key in trained if key in documents]
    assert len(found) > 0.9 * len(trained) - 10_000
    assert all(pretraining.allowed(d.text, held_back) for d in found)
    facts = (PROJECT / "dataset" / "facts.csv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = {tuple(line.split(",")[i] for i in (0, 2)) for line in facts}
    text = PAD.join(d.text for d in found)
    people = {s for s, _ in pairs if not s.startswith("《")}
    assert not [p for p in people if p in text]


def test_the_card_quotes_what_was_measured():
    facts = json.loads((BASE / "training.json").read_text(encoding="utf-8"))
    card = (BASE / "README.md").read_text(encoding="utf-8")
    for kind in ("held_out_bits_per_byte", "xz_bits_per_byte", "five_gram_bits_per_byte"):
        assert all(f"{value:.3f}" in card and math.isfinite(value) for value in facts[kind].values())
    assert all(a["question"] in card for a in facts["everyday"]["answers"][:30])
    assert (
        facts["held_out_bits_per_byte"]["all"]
        < facts["five_gram_bits_per_byte"]["all"]
        < facts["xz_bits_per_byte"]["all"]
    )
