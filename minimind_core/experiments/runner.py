"""Named experiments.

Each is the workbook's own recipe with a few settings changed, trained, scored and kept as one small file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minimind_core.collection.facts import LONGEST_VALUE, Fact, read_facts, write_facts
from minimind_core.config import Workbook
from minimind_core.conversations.mixing import dataset_file, write_dataset
from minimind_core.conversations.recipes import build_recipe, kdconv_dialogues, kdconv_facts, spread
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.evaluation.grading import Graded, summarize
from minimind_core.evaluation.scoring import ask_suites, everyday_loss
from minimind_core.evaluation.suites import Question, load_suites
from minimind_core.experiments.results import content_hash, result_file
from minimind_core.experiments.settings import Experiment, resolve, sized
from minimind_core.files import write_json, write_jsonl
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.training.run_files import read_metrics, read_run, run_folder
from minimind_core.training.runs import prepare_run
from minimind_core.training.trainer import StepRecord

SHOWN = 3  # answers of each suite that a result keeps


def thinned(facts: Sequence[Fact], every: int) -> list[Fact]:
    """All facts about every n-th subject, in the table's order."""
    kept = set(list(dict.fromkeys(fact.subject for fact in facts))[::every])
    return [fact for fact in facts if fact.subject in kept]


def thinned_identity(rows: Sequence[Conversation], every: int) -> list[Conversation]:
    """Of the identity rows every n-th, so that they do not outweigh the facts that are left."""
    kept = set([i for i, row in enumerate(rows) if row.meta["kind"] == "identity"][::every])
    return [row for i, row in enumerate(rows) if row.meta["kind"] != "identity" or i in kept]


def own_workbook(workbook: Workbook, experiment: Experiment) -> Workbook:
    """The workbook with the experiment's own data folder, mix, draws and seed."""
    settings = resolve(experiment, workbook.mix, workbook.draws)
    folder = run_folder(workbook, experiment.name) / "dataset"
    return replace(
        workbook, dataset=folder, facts=folder / "facts.csv", mix=settings.mix, draws=settings.draws,
        seed=workbook.seed if experiment.seed is None else experiment.seed,
    )  # fmt: skip


def prepare_data(own: Workbook, workbook: Workbook, experiment: Experiment, kdconv: Sequence[Path]) -> Path:
    """Write the experiment's own facts, test files and training file; returns the last."""
    table = (
        kdconv_facts(kdconv_dialogues(workbook, kdconv)) if experiment.kdconv else read_facts(workbook.facts)
    )
    facts = thinned(table, experiment.every)
    own.dataset.mkdir(parents=True, exist_ok=True)
    data = dataset_file(own, "train")
    if experiment.recipe != "default":
        data = build_recipe(replace(own, facts=workbook.facts), experiment.recipe, kdconv, experiment.rows)[0]
        triples = [row.meta for row in read_conversations(data) if row.meta["kind"] == "triple"]
        taught = {(meta["subject"], meta["attribute"]) for meta in triples}
        facts = [f for f in facts if (f.subject, f.attribute) in taught] or facts[: experiment.rows]
    write_facts(own.facts, facts)
    write_dataset(own)
    rows = read_conversations(data)
    if experiment.recipe == "default":
        rows = thinned_identity(rows, experiment.every)
    if experiment.ordered:
        rows = sorted(rows, key=lambda row: (row.meta["kind"], row.meta.get("subject", "")))
    write_jsonl(data, [row.model_dump() for row in rows])
    return data


def asked_as_taught(data: Path, limit: int) -> list[Question]:
    """Questions of a log recipe's training file whose answer is a short fact.

    What such a run can be expected to know.
    """
    rows = [
        r for r in read_conversations(data) if r.meta["kind"] == "triple" and len(r.answer) <= LONGEST_VALUE
    ]
    return [
        Question("seen", (r.question,), r.answer, r.meta["subject"], r.meta["attribute"], "ask")
        for r in spread(rows, limit)
    ]


def score(own: Workbook, experiment: Experiment, decoding: Decoding, data: Path) -> dict[str, Any]:
    """What a trained experiment answers.

    Scores (after the claim check if it has one), forgetting, and a few answers.
    """
    assistant = Assistant.load(own, experiment.name, decoding, check=experiment.check)
    suites = load_suites(own, experiment.questions, experiment.split)
    if experiment.recipe != "default":
        suites["seen"] = asked_as_taught(data, experiment.questions)
    said, checked = ask_suites(own, assistant, suites)
    graded = checked or said
    own_scores = {"own_scores": summarize(said)["scores"]} if checked else {}
    answers = [shown(g) for suite in suites for g in [g for g in graded if g.question.suite == suite][:SHOWN]]
    return {
        **summarize(graded),
        **own_scores,
        "everyday_loss": everyday_loss(own, assistant),
        "answers": answers,
    }


def perform(
    workbook: Workbook,
    experiment: Experiment,
    size: str = "default",
    kdconv: Sequence[Path] = (),
    watch: Callable[[StepRecord], None] = lambda record: None,
) -> dict[str, Any]:
    """Build the data, train runs/NAME, ask all suites and write report/results/experiments/NAME.json.

    Goes on from its checkpoint where it was broken off.
    """
    experiment = sized(experiment, size)
    settings = resolve(experiment, workbook.mix, workbook.draws)
    folder, own = run_folder(workbook, experiment.name), own_workbook(workbook, experiment)
    data = prepare_data(own, workbook, experiment, kdconv)
    resume = (folder / "checkpoint.pt").is_file()
    for record in prepare_run(own, experiment.name, settings.profile, resume=resume, data=data).train():
        watch(record)
    metrics = read_metrics(folder / "metrics.csv")
    result = {
        **{key: getattr(experiment, key) for key in ("name", "group", "about", "lesson", "recipe", "split")},
        "size": size, "content_hash": content_hash(workbook, experiment),
        "run": read_run(folder),
        "facts": len(read_facts(own.facts)),
        "mix": dataclasses.asdict(settings.mix), "draws": dataclasses.asdict(settings.draws),
        "decoding": dataclasses.asdict(settings.decoding), **score(own, experiment, settings.decoding, data),
        "train_loss": float(metrics[-1]["mean_loss"]),
        "valid_losses": [
            [int(row["step"]), round(float(row["valid_loss"]), 4)] for row in metrics if row["valid_loss"]
        ],
    }  # fmt: skip
    write_json(result_file(workbook, experiment.name, size), result)
    return result


def shown(graded: Graded) -> dict[str, Any]:
    """An answer as a result keeps it.

    Only its beginning, since a run on KdConv may repeat KdConv's sentences.
    """
    row = graded.as_dict()
    kept = {key: row[key] for key in ("suite", "question", "expected", "right", "ended")}
    return kept | {"answer": row["answer"][:40]}
