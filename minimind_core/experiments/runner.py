"""Named experiments: each is the workbook's own recipe with a few settings changed, trained, scored and kept
as one small file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from minimind_core import conversations
from minimind_core.collection.facts import LONGEST_VALUE, Fact, read_facts, write_facts
from minimind_core.config import PROFILES, Draws, Mix, Profile, Workbook
from minimind_core.conversations.mixing import dataset_file, write_dataset
from minimind_core.conversations.recipes import build_recipe, kdconv_dialogues, kdconv_facts, spread
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.grading import Graded, summarize
from minimind_core.evaluation.scoring import ask_suites, everyday_loss
from minimind_core.evaluation.suites import Question, load_suites
from minimind_core.files import write_json, write_jsonl
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.claims import claim_check
from minimind_core.inference.decoding import Decoding
from minimind_core.training.runs import base_sha256, file_sha256, prepare_run, read_metrics, run_folder
from minimind_core.training.trainer import StepRecord

Settings = Mapping[str, Any]
Record = TypeVar("Record")
LOG_BATCH = 32  # conversations a step in the log
FULL_QUESTIONS = 100
SHOWN = 3  # answers of each suite that a result keeps


@dataclass(frozen=True)
class Experiment:
    """What one experiment changes; every table holds fields of the settings of that name."""

    name: str
    group: str
    about: str  # one sentence for people
    lesson: str = ""  # what a team can write in its report about it
    recipe: str = "default"  # training rows: the workbook's, or one of the log's recipes
    rows: int | None = None  # of the log's recipes so many rows only, besides identity
    kdconv: bool = False  # facts are KdConv's short triples instead of the workbook's table
    every: int = 1  # facts about every n-th subject only
    ordered: bool = (
        False  # training rows one kind and subject after another, as a file is that nobody has shuffled
    )
    questions: int = 100  # at most so many of each suite
    split: str = "valid"  # questions that judge it; `test` only for what is settled
    check: bool = False  # scores are those after the claim check
    seed: int | None = None  # instead of the workbook's
    mix: Settings = field(default_factory=dict)
    draws: Settings = field(default_factory=dict)
    profile: Settings = field(default_factory=dict)
    train: Settings = field(default_factory=dict)
    lora: Settings = field(default_factory=dict)
    decoding: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """All settings of an experiment."""

    mix: Mix
    draws: Draws
    profile: Profile
    decoding: Decoding


def load_experiments(extra: Path | None = None) -> dict[str, Experiment]:
    """The package's experiments.toml and a team's own file; a group's `defaults` table holds for all its
    members.
    """
    texts = [(files(__package__) / "experiments.toml").read_text(encoding="utf-8")]
    if extra is not None and extra.is_file():
        texts.append(extra.read_text(encoding="utf-8-sig"))
    found = {}
    for text in texts:
        for title, group in tomllib.loads(text).items():
            defaults = group.pop("defaults", {})
            for name, own in group.items():
                try:
                    found[name] = Experiment(name=name, group=title, **merged(defaults, own))
                    resolve(found[name])
                except (TypeError, ValueError) as error:
                    raise WorkbookError(
                        f"experiments.toml: [{name}] 里有不认识或不合适的设置（{error}）。"
                    ) from error
    return found


def merged(defaults: Settings, own: Settings) -> dict[str, Any]:
    """A member's table over its group's defaults, inner tables likewise."""
    inner = {
        k: {**defaults[k], **value} for k, value in own.items() if isinstance(value, dict) and k in defaults
    }
    return {**defaults, **own, **inner}


def changed(settings: Record, changes: Settings) -> Record:
    """The dataclass with some fields changed; lists become tuples."""
    return replace(
        settings, **{k: tuple(value) if isinstance(value, list) else value for k, value in changes.items()}
    )


def sized(experiment: Experiment, size: str) -> Experiment:
    """The experiment at a named size; `full` takes all rows and facts, and as many conversations a step as
    the log had.
    """
    if size != "full":
        return experiment
    profile = dict(experiment.profile)
    if profile.get("rows_per_step"):
        profile["rows_per_step"] = LOG_BATCH
    questions = max(FULL_QUESTIONS, experiment.questions)
    return replace(experiment, rows=None, every=1, questions=questions, profile=profile)


def resolve(experiment: Experiment, mix: Mix | None = None, draws: Draws | None = None) -> Resolved:
    """All settings of an experiment."""
    profile = changed(PROFILES["default"], experiment.profile)
    profile = replace(
        profile, train=changed(profile.train, experiment.train), lora=changed(profile.lora, experiment.lora)
    )
    return Resolved(
        changed(mix or Mix(), experiment.mix),
        changed(draws or Draws(), experiment.draws),
        profile,
        changed(Decoding(), experiment.decoding),
    )


def thinned(facts: Sequence[Fact], every: int) -> list[Fact]:
    """All facts about every n-th subject, in the table's order."""
    kept = set(list(dict.fromkeys(fact.subject for fact in facts))[::every])
    return [fact for fact in facts if fact.subject in kept]


def thinned_identity(rows: Sequence[Conversation], every: int) -> list[Conversation]:
    """Of the identity rows every n-th, so that they do not outweigh the facts that are left."""
    kept = set([i for i, row in enumerate(rows) if row.meta["kind"] == "identity"][::every])
    return [row for i, row in enumerate(rows) if row.meta["kind"] != "identity" or i in kept]


def content_hash(workbook: Workbook, experiment: Experiment) -> str:
    """Changes when anything that the result depends on changes, the code aside.

    That is: settings, facts, the texts that questions are made from, the test questions, persona, seed and
    base.
    """
    settings = resolve(experiment, workbook.mix, workbook.draws)
    about = {
        k: v
        for k, v in dataclasses.asdict(experiment).items()
        if k not in ("name", "group", "about", "lesson", "seed")
    }
    folder = Path(conversations.__file__).parent / "data"
    texts = [
        *sorted(folder.iterdir()),
        workbook.wordings,
        workbook.questions(experiment.split),
        workbook.facts,
    ]
    if experiment.kdconv or experiment.recipe != "default":
        texts += [workbook.root / "dataset" / name for name in ("kdconv_sample.json", "health.csv")]
    known = [file_sha256(path) for path in texts if path.is_file()] + [base_sha256(workbook.base)]
    parts = [
        dataclasses.asdict(settings),
        dataclasses.asdict(workbook.persona),
        about,
        experiment.seed or workbook.seed,
        known,
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def result_file(workbook: Workbook, name: str, size: str = "default") -> Path:
    """Where an experiment's figures are kept."""
    return workbook.results / "experiments" / (f"{name}.json" if size == "default" else f"{name}_{size}.json")


def finished(workbook: Workbook, experiment: Experiment, size: str = "default") -> dict[str, Any] | None:
    """The kept result, if it was made with these very settings."""
    path = result_file(workbook, experiment.name, size)
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return result if result.get("content_hash") == content_hash(workbook, sized(experiment, size)) else None


def own_workbook(workbook: Workbook, experiment: Experiment) -> Workbook:
    """The workbook with the experiment's own data folder, mix, draws and seed."""
    settings = resolve(experiment, workbook.mix, workbook.draws)
    folder = run_folder(workbook, experiment.name) / "dataset"
    return replace(
        workbook, dataset=folder, facts=folder / "facts.csv", mix=settings.mix, draws=settings.draws,
        seed=experiment.seed or workbook.seed,
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
    """Questions of a log recipe's training file whose answer is a short fact: what such a run can be expected
    to know.
    """
    rows = [
        r for r in read_conversations(data) if r.meta["kind"] == "triple" and len(r.answer) <= LONGEST_VALUE
    ]
    return [
        Question("seen", (r.question,), r.answer, r.meta["subject"], r.meta["attribute"], "ask")
        for r in spread(rows, limit)
    ]


def score(own: Workbook, experiment: Experiment, decoding: Decoding, data: Path) -> dict[str, Any]:
    """What a trained experiment answers: scores (after the claim check if it has one), forgetting, and a few
    answers.
    """
    assistant = Assistant.load(own, experiment.name, decoding, check=False)
    suites = load_suites(own, experiment.questions, experiment.split)
    if experiment.recipe != "default":
        suites["seen"] = asked_as_taught(data, experiment.questions)
    said, checked = ask_suites(own, assistant, suites, check=claim_check(own) if experiment.check else None)
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
        "run": json.loads((folder / "run.json").read_text(encoding="utf-8")),
        "facts": len(read_facts(own.facts)),
        "mix": dataclasses.asdict(settings.mix), "draws": dataclasses.asdict(settings.draws),
        "decoding": dataclasses.asdict(settings.decoding), **score(own, experiment, settings.decoding, data),
        "train_loss": float(metrics[-1]["mean_loss"]),
        "losses": [round(float(row["loss"]), 3) for row in metrics],
        "valid_losses": [
            [int(row["step"]), round(float(row["valid_loss"]), 4)] for row in metrics if row["valid_loss"]
        ],
    }  # fmt: skip
    write_json(result_file(workbook, experiment.name, size), result)
    return result


def shown(graded: Graded) -> dict[str, Any]:
    """An answer as a result keeps it: only its beginning, since a run on KdConv may repeat KdConv's
    sentences.
    """
    row = graded.as_dict()
    kept = {key: row[key] for key in ("suite", "question", "expected", "right", "ended")}
    return kept | {"answer": row["answer"][:40]}


def load_experiment_results(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All kept results on this base by name, in the order in which the experiments are defined, others after
    them.
    """
    names, base = list(load_experiments(workbook.root / "experiments.toml")), base_sha256(workbook.base)
    place = {name: number for number, name in enumerate(names)}
    found = {}
    for path in (workbook.results / "experiments").glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["group"] == "ground" or result["run"]["base_sha256"] == base:  # ground compares bases
            found[path.stem] = result
    return dict(sorted(found.items(), key=lambda item: (place.get(item[0], len(names)), item[0])))


def in_group(workbook: Workbook, group: str, size: str = "default") -> dict[str, dict[str, Any]]:
    """Kept results of a group at one size, by name."""
    kept = load_experiment_results(workbook).items()
    return {name: result for name, result in kept if result["group"] == group and result["size"] == size}
