"""Saying that one does not know: an answer that the model itself finds improbable is replaced by the refusal.

Selective answering by the model's own probability (arXiv:1610.02136, arXiv:1705.08500). The floor is set on validation
questions, which are about taught facts in a wording that is neither taught nor tested.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from minimind_core.config import Workbook
from minimind_core.conversations.identity import refusal_answer
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.evaluation.generation import Decoding, generate
from minimind_core.evaluation.suites import grade_all
from minimind_core.files import write_json
from minimind_core.training.runs import load_run, run_folder

LOWEST = 0.01  # share of the right validation answers that is taken for outliers
MARGIN = 0.5  # the floor lies so far below the others: people ask in stranger ways than the validation questions do
ENOUGH = 50  # right answers without which there is no floor
ASKED = 400  # validation questions


def confidence_file(workbook: Workbook, name: str) -> Path:
    """Where a run's floor is kept."""
    return run_folder(workbook, name) / "confidence.json"


def calibrate(workbook: Workbook, name: str, decoding: Decoding | None = None, device: str = "auto") -> dict[str, Any]:
    """Ask the validation questions, greedily unless told otherwise, and keep a floor for the probability of an answer.

    It is MARGIN times what all but LOWEST of the right answers reach. Without ENOUGH right answers to tell, no answer is held back.
    """
    rows = validation_rows(workbook)
    answers = generate(*load_run(workbook, name, device), [row.messages[:-1] for row in rows], decoding)
    verdicts = [graded.right for graded in grade_all(workbook, {"music_held_out": rows}, answers)]
    chances = sorted(a.chance for a, right in zip(answers, verdicts, strict=True) if right)
    found = {
        "floor": MARGIN * chances[int(LOWEST * len(chances))] if len(chances) >= ENOUGH else None,
        "asked": len(rows), "right": len(chances), "lowest": LOWEST, "margin": MARGIN,
        "chances": [[round(a.chance, 4), right] for a, right in zip(answers, verdicts, strict=True)],
    }  # fmt: skip
    write_json(confidence_file(workbook, name), found)
    return found


def validation_rows(workbook: Workbook) -> list[Conversation]:
    """At most ASKED validation questions, by the workbook's seed."""
    rows = read_conversations(dataset_file(workbook, "music_qa_valid"))
    return random.Random(workbook.seed).sample(rows, min(ASKED, len(rows)))


def careful(workbook: Workbook, name: str, decoding: Decoding | None = None) -> Decoding:
    """The decoding with the run's floor, if it has been calibrated; sampled answers are less probable, so that they get none."""
    decoding, path = decoding or Decoding(), confidence_file(workbook, name)
    floor = json.loads(path.read_text(encoding="utf-8"))["floor"] if path.is_file() else None
    return decoding if floor is None or decoding.temperature > 0 else replace(decoding, floor=floor, fallback=refusal_answer(workbook.persona))
