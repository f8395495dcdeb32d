"""Evaluate a run and keep the result as a file that README, notebooks and report quote."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from minimind_core.config import PROFILES, Workbook
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import Conversation, dialogue, read_conversations
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.confidence import careful
from minimind_core.evaluation.generation import Decoding, generate, reconsider, settled
from minimind_core.evaluation.guard import plain_guard
from minimind_core.evaluation.metrics import mcnemar, refuses, repeats, share_with_interval
from minimind_core.evaluation.retrieval import Lookup
from minimind_core.evaluation.suites import SUITES, Graded, grade_all, load_suites, run_suites, summarize
from minimind_core.files import write_json
from minimind_core.modeling.minimind import MiniMind
from minimind_core.training.batches import encode_rows, make_batch
from minimind_core.training.runs import load_run, run_folder
from minimind_core.training.trainer import IGNORE, mean_loss


def results_file(workbook: Workbook, name: str) -> Path:
    """Where the scores of a run are kept."""
    return workbook.results / f"run_{name}.json"


def evaluate_run(workbook: Workbook, name: str, profile: str | None = None) -> dict[str, Any]:
    """Ask every suite, write report/results/run_NAME.json and return its content; `retrieval` is look-up instead of a model."""
    suites = load_suites(workbook, PROFILES[profile or workbook.profile].test_questions)
    started = time.monotonic()
    extra: dict[str, Any] = {}
    asked = [row for rows in suites.values() for row in rows]
    with tqdm(total=len(asked), desc=f"测试 {name}", unit="题", disable=None) as bar:
        if name == "retrieval":
            lookup, guard = Lookup(read_conversations(dataset_file(workbook, "train"))), plain_guard(workbook)
            own = grade_all(workbook, suites, [lookup.answer(row) for row in asked])
            answers = [settled(g.answer, row.messages[:-1], guard) for g, row in zip(own, asked, strict=True)]
        else:
            model, tokenizer = load_run(workbook, name)
            decoding = careful(workbook, name)
            guard = decoding.guard
            own = run_suites(model, tokenizer, workbook, suites, report=bar.update, decoding=replace(decoding, guard=None))
            extra = {"everyday": everyday(workbook, model, tokenizer, decoding), "not_learned": not_learned(model, tokenizer, suites, own)}
            answers = reconsider(model, tokenizer, [row.messages[:-1] for row in asked], [g.answer for g in own], decoding)
        graded = own
        if guard is not None:
            graded = grade_all(workbook, suites, answers)
            extra |= {"floor": guard.floor, "reverse_floor": guard.reverse_floor, "own_scores": summarize(own)["scores"]}
    settings_file = run_folder(workbook, name) / "run.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {"name": name}
    result = {
        "run": settings, "seed": workbook.seed, "seconds": time.monotonic() - started,
        **summarize(graded), **extra, "answers": [item.as_dict() for item in graded],
    }  # fmt: skip
    write_json(results_file(workbook, name), result)
    return result


def everyday(workbook: Workbook, model: MiniMind, tokenizer: Tokenizer, decoding: Decoding) -> dict[str, Any] | None:
    """How much of everyday talk is left: mean loss on the base's own answers to everyday prompts, nats per token, and what is answered now.

    What a run adds to the base's loss has been forgotten; answers that decline or say who the model is have been taught in its stead.
    """
    card = workbook.base / "training.json"
    pairs = json.loads(card.read_text(encoding="utf-8")).get("everyday", {}).get("answers") if card.is_file() else None
    if not pairs:
        return None
    known = [dialogue(p["question"], p["answer"]) for p in pairs if p["answer"].strip()]
    rows = encode_rows(known, tokenizer)
    answers = generate(model, tokenizer, [row.messages[:-1] for row in known], decoding)
    share = lambda test: share_with_interval(sum(map(test, answers)), len(answers))
    return {
        "loss": mean_loss(model, [make_batch(rows[i : i + 32], 0) for i in range(0, len(rows), 32)]), "n": len(rows),
        "ended": share(lambda a: a.ended), "repetition": share(lambda a: repeats(a.text)),
        "declined": share(lambda a: refuses(a.text)), "introduced": share(lambda a: workbook.persona.name in a.text),
    }  # fmt: skip


def not_learned(model: MiniMind, tokenizer: Tokenizer, suites: dict[str, list[Conversation]], graded: Sequence[Graded]) -> list[dict[str, Any]]:
    """Facts that were answered wrongly, the least known first, with the share of answer tokens whose probability exceeds one half."""
    asked = [row for rows in suites.values() for row in rows]
    missed = {(r.meta["subject"], r.meta["attribute"]): r for r, g in zip(asked, graded, strict=True) if not g.right and g.suite.startswith("music")}
    shares = confident_shares(model, tokenizer, list(missed.values()))
    found = [{"subject": s, "attribute": a, "confident": share} for (s, a), share in zip(missed, shares, strict=True)]
    return sorted(found, key=lambda item: item["confident"])


@torch.no_grad()
def confident_shares(model: MiniMind, tokenizer: Tokenizer, rows: Sequence[Conversation], batch_size: int = 32) -> list[float]:
    """Of each conversation's answer tokens the share with a probability above one half: what greedy decoding will find."""
    encoded = encode_rows(rows, tokenizer)
    shares: list[float] = []
    for start in range(0, len(encoded), batch_size):
        batch = make_batch(encoded[start : start + batch_size], 0)
        labels = batch.labels.to(model.device)
        logits = model(batch.tokens.to(model.device))
        chance = logits.float().softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        learned = labels != IGNORE
        shares += (((chance > 0.5) & learned).sum(1) / learned.sum(1)).tolist()
    return shares


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each suite the questions that just one of two results got right, and McNemar's p-value; both asked the same questions."""
    verdicts = [{(a["suite"], a["question"], a["about"], a["expected"]): a["right"] for a in result["answers"]} for result in (first, second)]
    found = {}
    for suite in {key[0]: None for key in verdicts[0]}:
        shared = [key for key in verdicts[0] if key[0] == suite and key in verdicts[1]]
        only = [sum(verdicts[i][key] and not verdicts[1 - i][key] for key in shared) for i in (0, 1)]
        found[suite] = {"n": len(shared), "only_first": only[0], "only_second": only[1], "p": mcnemar(*only)}
    return found


def not_beyond_lookup(results: dict[str, dict[str, Any]], run: str) -> list[str]:
    """Suites of wordings that were not taught in which the run answers no more questions than look-up does, unless it answers all."""
    if "retrieval" not in results:
        return []
    lookup, scores = results["retrieval"]["scores"], results[run]["scores"]
    untaught = [suite for suite in SUITES if suite != "music_seen" and scores[suite]["n"]]
    return [suite for suite in untaught if scores[suite]["share"] <= lookup[suite]["share"] and scores[suite]["share"] < 1]


def score_columns(results: dict[str, dict[str, Any]], names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Scores to be set side by side, by label: of the named results that there are, or of all; a run's own answers before the guarded ones."""
    columns = {}
    for name in [name for name in names or results if name in results]:
        if "own_scores" in results[name]:
            columns[f"{name}，不把关"] = results[name]["own_scores"]
        columns[name] = results[name]["scores"]
    return columns


def asked(columns: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, str]:
    """The names of those suites of which any column of scores holds a question."""
    columns = list(columns)
    return {suite: label for suite, label in names.items() if any(scores[suite]["n"] for scores in columns)}


def load_results(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All evaluated runs, the base first."""
    files = sorted(workbook.results.glob("run_*.json"), key=lambda p: (p.stem != "run_base", p.stem != "run_retrieval", p.stem))
    if not files:
        raise WorkbookError(f"{workbook.results}: 还没有测试结果。请先运行 minimind evaluate 或笔记本 05、06。")
    return {path.stem.removeprefix("run_"): json.loads(path.read_text(encoding="utf-8")) for path in files}
