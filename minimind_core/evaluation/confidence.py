"""How sure a run has to be: the guard's floor, set on validation questions about what it was taught; what it was not taught shows its worth."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from minimind_core.config import Workbook
from minimind_core.conversations.identity import INTENTS, identity_questions
from minimind_core.conversations.mixing import dataset_file, taught_answers
from minimind_core.conversations.questions import load_carriers
from minimind_core.conversations.schema import Conversation, dialogue, read_conversations
from minimind_core.conversations.unknown import off_topic
from minimind_core.evaluation.generation import Decoding, generate
from minimind_core.evaluation.guard import Guard, plain_guard
from minimind_core.evaluation.metrics import normalize
from minimind_core.evaluation.retrieval import Lookup
from minimind_core.evaluation.suites import grade_all
from minimind_core.files import write_json
from minimind_core.training.runs import load_run, run_folder

MARGIN = 0.5  # a floor is this much of the least probable right answer: what is asked more oddly than in the validation is less probable still
ENOUGH = 50  # right answers without which there is no floor
LEAST = 0.1  # whatever states nothing and is less probable than this is babble: right answers about oneself are far above
ASKED = 300  # validation questions about facts at most, and about unknown things


def confidence_file(workbook: Workbook, name: str) -> Path:
    """Where a run's floor is kept."""
    return run_folder(workbook, name) / "confidence.json"


def calibrate(workbook: Workbook, name: str, decoding: Decoding | None = None, device: str = "auto") -> dict[str, Any]:
    """Ask the validation questions, greedily unless told otherwise, and keep a floor well below all right statements.

    Answers from value to subject have a floor of their own, if there are ENOUGH right ones: a name is less probable than
    what is said about it. Without ENOUGH right statements no statement is held back for being improbable.
    """
    suites = validation_suites(workbook)
    asked = [row.messages[:-1] for rows in suites.values() for row in rows]
    graded = grade_all(workbook, suites, generate(*load_run(workbook, name, device), asked, decoding))
    guard = plain_guard(workbook)
    statements = [
        (g.answer.chance, g.right and g.suite != "refusal", about == "value")
        for messages, g in zip(asked, graded, strict=True) if (about := guard.about(messages, g.answer.text))
    ]  # fmt: skip
    forward, back = (floor([chance for chance, good, value in statements if good and value == reverse]) for reverse in (False, True))
    known, unknown = ([g.right for g in graded if (g.suite == "refusal") == refusal] for refusal in (False, True))
    found = {
        "floor": forward, "reverse_floor": forward if back is None else back,
        "asked": len(known), "right": sum(known), "unknown": len(unknown), "refused": sum(unknown),
        "chances": [[round(chance, 4), good, reverse] for chance, good, reverse in statements],
    }  # fmt: skip
    write_json(confidence_file(workbook, name), found)
    return found


def floor(chances: Sequence[float]) -> float | None:
    """MARGIN of the least of the right statements' probabilities; None if there are too few to tell."""
    return MARGIN * min(chances) if len(chances) >= ENOUGH else None


def validation_suites(workbook: Workbook) -> dict[str, list[Conversation]]:
    """Questions about taught facts, half of them forward, and about unknown things, each amid words that neither training nor test has."""
    rng = random.Random(workbook.seed)
    taught = read_conversations(dataset_file(workbook, "music_qa_train"))
    suites = {
        "music_held_out": (read_conversations(dataset_file(workbook, "music_qa_valid")), ASKED // 2),
        **{f"music_{way}": ([row for row in taught if row.meta["way"] == way], ASKED // 4) for way in ("reverse", "follow")},
        "refusal": (read_conversations(dataset_file(workbook, "refusal_valid")), ASKED),
    }
    return {suite: spoken(rng.sample(rows, min(most, len(rows)))) for suite, (rows, most) in suites.items()}


def spoken(rows: Sequence[Conversation]) -> list[Conversation]:
    """Every last question the way people might put it: what is validated on fluent questions is too sure of itself."""
    carriers = load_carriers("valid")
    asked = [dialogue(carriers[n % len(carriers)].replace("{q}", row.question), row.answer) for n, row in enumerate(rows)]
    return [Conversation(conversations=row.conversations[:-2] + new.conversations, meta=row.meta) for row, new in zip(rows, asked, strict=True)]


@lru_cache(maxsize=4)
def taught(workbook: Workbook, *changed: tuple[int, ...]) -> tuple[Guard, tuple[str, ...]]:
    """The guard without floors and the taught answers, read once for all questions until one of the files they stand in is changed."""
    guard = plain_guard(workbook)
    about_itself = [question for intent in INTENTS for question in identity_questions(intent, False)]
    lookup = Lookup([dialogue(question, "…") for question in map(normalize, (*about_itself, *off_topic(guard.subjects)[0]))])

    def likeness(question: str) -> tuple[float, float]:
        itself, other = np.split(lookup.cosines(normalize(question)), [len(about_itself)])
        return float(itself.max()), float(other.max())

    return replace(guard, likeness=likeness), taught_answers(workbook)


def careful(workbook: Workbook, name: str, decoding: Decoding | None = None) -> Decoding:
    """The decoding with what was taught to go by and the run's guard, if calibrated; sampled answers are less probable, so they get no floor."""
    changed = [(file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else () for file in (workbook.facts, workbook.wordings)]
    guard, likely = taught(workbook, *changed)
    decoding, path = replace(decoding or Decoding(), likely=likely), confidence_file(workbook, name)
    if not path.is_file():
        return decoding
    if decoding.temperature == 0:
        found = json.loads(path.read_text(encoding="utf-8"))
        # a run calibrated before 0.8.0 has one floor for both
        guard = replace(guard, floor=found["floor"], reverse_floor=found.get("reverse_floor", found["floor"]), least=LEAST)
    return replace(decoding, guard=guard)
