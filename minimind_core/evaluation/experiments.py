"""Named experiments: each is the workbook's own recipe with a few settings changed, trained, scored and kept as one small file."""

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
from minimind_core.config import PROFILES, Mix, Profile, Workbook
from minimind_core.conversations.mixing import dataset_file, write_dataset
from minimind_core.conversations.recipes import build_recipe, kdconv_dialogues, kdconv_facts, spread
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.confidence import calibrate, careful
from minimind_core.evaluation.generation import Decoding
from minimind_core.evaluation.scoring import everyday
from minimind_core.evaluation.suites import Graded, load_suites, run_suites, summarize
from minimind_core.files import write_json, write_jsonl
from minimind_core.training.runs import base_sha256, file_sha256, load_run, prepare_run, read_metrics, run_folder
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
    ordered: bool = False  # training rows one kind and subject after another, as a file is that nobody has shuffled
    questions: int = 100  # at most so many of each suite
    careful: bool = False  # with the guard
    seed: int | None = None  # instead of the workbook's
    mix: Settings = field(default_factory=dict)
    profile: Settings = field(default_factory=dict)
    train: Settings = field(default_factory=dict)
    lora: Settings = field(default_factory=dict)
    decoding: Settings = field(default_factory=dict)


def load_experiments(extra: Path | None = None) -> dict[str, Experiment]:
    """The package's experiments.toml and a team's own file; a group's `defaults` table holds for all its members."""
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
                    raise WorkbookError(f"experiments.toml: [{name}] 里有不认识或不合适的设置（{error}）。") from error
    return found


def merged(defaults: Settings, own: Settings) -> dict[str, Any]:
    """A member's table over its group's defaults, inner tables likewise."""
    inner = {key: {**defaults[key], **value} for key, value in own.items() if isinstance(value, dict) and key in defaults}
    return {**defaults, **own, **inner}


def changed(settings: Record, changes: Settings) -> Record:
    """The dataclass with some fields changed; lists become tuples."""
    return replace(settings, **{name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()})


def at_full_size(experiment: Experiment) -> Experiment:
    """The experiment with all rows and facts, as many conversations a step as the log had, and FULL_QUESTIONS of each suite."""
    profile = dict(experiment.profile)
    if profile.get("rows_per_step"):
        profile["rows_per_step"] = LOG_BATCH
    return replace(experiment, rows=None, every=1, questions=max(FULL_QUESTIONS, experiment.questions), profile=profile)


def sized(experiment: Experiment, size: str) -> Experiment:
    """The experiment at a named size."""
    return at_full_size(experiment) if size == "full" else experiment


def resolve(experiment: Experiment, mix: Mix | None = None) -> tuple[Mix, Profile, Decoding]:
    """All settings of an experiment."""
    profile = changed(PROFILES["default"], experiment.profile)
    profile = replace(profile, train=changed(profile.train, experiment.train), lora=changed(profile.lora, experiment.lora))
    return changed(mix or Mix(), experiment.mix), profile, changed(Decoding(), experiment.decoding)


def thinned(facts: Sequence[Fact], every: int) -> list[Fact]:
    """All facts about every n-th subject, in the table's order."""
    kept = set(list(dict.fromkeys(fact.subject for fact in facts))[::every])
    return [fact for fact in facts if fact.subject in kept]


def thinned_identity(rows: Sequence[Conversation], every: int) -> list[Conversation]:
    """Of the identity rows every n-th, so that they do not outweigh the facts that are left."""
    kept = set([i for i, row in enumerate(rows) if row.meta["kind"] == "identity"][::every])
    return [row for i, row in enumerate(rows) if row.meta["kind"] != "identity" or i in kept]


def content_hash(workbook: Workbook, experiment: Experiment) -> str:
    """Changes when anything that the result depends on changes, the code aside: settings, facts, texts, persona, seed or base."""
    mix, *others = resolve(experiment, workbook.mix)
    settings = [dataclasses.asdict(part) for part in (mix, *others, workbook.persona)]
    if not mix.indirect:
        del settings[0]["indirect"]  # as if there were no such setting: the result is that of the time when there was none
    about = [getattr(experiment, name) for name in ("recipe", "rows", "kdconv", "every", "ordered", "questions", "careful")]
    about.append(experiment.seed or workbook.seed)
    known = [file_sha256(workbook.facts), base_sha256(workbook.base), texts_sha256(workbook, experiment.recipe, mix)]
    return hashlib.sha256(json.dumps([settings, about, known], ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def texts_sha256(workbook: Workbook, recipe: str, mix: Mix) -> str:
    """Digest of the wordings, persona and unknown things that a recipe's data and tests are made from, comments aside."""
    folder = Path(conversations.__file__).parent
    # the log's recipes carry no question
    names = ("persona", "unknown", "wordings", *(["carriers"] if recipe == "default" else []), *(["indirect"] if mix.indirect else []))
    paths = [path for path in (*(folder / f"{name}.toml" for name in names), workbook.wordings) if path.is_file()]
    tables = [tomllib.loads(path.read_text(encoding="utf-8-sig")) for path in paths]
    return hashlib.sha256(json.dumps(tables, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def result_file(workbook: Workbook, name: str, size: str = "default") -> Path:
    """Where an experiment's figures are kept."""
    return workbook.results / "experiments" / (f"{name}.json" if size == "default" else f"{name}_{size}.json")


def finished(workbook: Workbook, experiment: Experiment, size: str = "default") -> dict[str, Any] | None:
    """The kept result, if it was made with these very settings."""
    path = result_file(workbook, experiment.name, size)
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return result if result.get("content_hash") == content_hash(workbook, sized(experiment, size)) else None


def prepare_data(own: Workbook, workbook: Workbook, experiment: Experiment, kdconv: Sequence[Path]) -> Path:
    """Write the experiment's own facts, test files and training file; returns the last."""
    facts = thinned(kdconv_facts(kdconv_dialogues(workbook, kdconv)) if experiment.kdconv else read_facts(workbook.facts), experiment.every)
    own.dataset.mkdir(parents=True, exist_ok=True)
    data = dataset_file(own, "train")
    if experiment.recipe != "default":
        data = build_recipe(replace(own, facts=workbook.facts), experiment.recipe, kdconv, experiment.rows)[0]
        taught = {(row.meta["subject"], row.meta["attribute"]) for row in read_conversations(data) if row.meta["kind"] == "triple"}
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


def asked_as_taught(data: Path, limit: int) -> list[Conversation]:
    """Questions of a log recipe's training file whose answer is a short fact: what such a run can be expected to know."""
    rows = [row for row in read_conversations(data) if row.meta["kind"] == "triple" and len(row.answer) <= LONGEST_VALUE]
    return spread(rows, limit)


def perform(
    workbook: Workbook,
    experiment: Experiment,
    size: str = "default",
    kdconv: Sequence[Path] = (),
    watch: Callable[[StepRecord], None] = lambda record: None,
) -> dict[str, Any]:
    """Build the data, train runs/NAME, ask all suites and write report/results/experiments/NAME.json; goes on where it was broken off."""
    experiment = sized(experiment, size)
    mix, profile, decoding = resolve(experiment, workbook.mix)
    folder = run_folder(workbook, experiment.name)
    own = replace(workbook, dataset=folder / "dataset", facts=folder / "dataset" / "facts.csv", mix=mix, seed=experiment.seed or workbook.seed)
    data = prepare_data(own, workbook, experiment, kdconv)
    run = prepare_run(own, experiment.name, profile, resume=(folder / "checkpoint.pt").is_file(), data=data)
    for record in run.train():
        watch(record)
    model, tokenizer = load_run(own, experiment.name)
    suites = load_suites(own, experiment.questions)
    if experiment.recipe != "default":
        suites["music_seen"] = asked_as_taught(data, experiment.questions)
    if experiment.careful:
        calibrate(own, experiment.name, decoding)
    used = careful(own, experiment.name, decoding) if experiment.careful else decoding
    graded = run_suites(model, tokenizer, own, suites, decoding=used)
    metrics = read_metrics(folder / "metrics.csv")
    result = {
        **{key: getattr(experiment, key) for key in ("name", "group", "about", "lesson", "recipe")},
        "size": size, "content_hash": content_hash(workbook, experiment),
        "run": json.loads((folder / "run.json").read_text(encoding="utf-8")), "facts": len(read_facts(own.facts)),
        "mix": dataclasses.asdict(mix), "decoding": dataclasses.asdict(decoding),
        "floor": used.guard and used.guard.floor, "reverse_floor": used.guard and used.guard.reverse_floor, **summarize(graded),
        "everyday": everyday(own, model, tokenizer, used), "train_loss": float(metrics[-1]["mean_loss"]),
        "losses": [round(float(row["loss"]), 3) for row in metrics],
        "valid_losses": [[int(row["step"]), round(float(row["valid_loss"]), 4)] for row in metrics if row["valid_loss"]],
        "answers": [shown(g) for suite in suites for g in [g for g in graded if g.suite == suite][:SHOWN]],
    }  # fmt: skip
    write_json(result_file(workbook, experiment.name, size), result)
    return result


def shown(graded: Graded) -> dict[str, Any]:
    """An answer as a result keeps it: only its beginning, since a run on KdConv may repeat KdConv's sentences."""
    row = graded.as_dict()
    return {key: row[key] for key in ("suite", "question", "expected", "right", "ended")} | {"answer": row["answer"][:40]}


def in_group(workbook: Workbook, group: str, size: str = "default") -> dict[str, dict[str, Any]]:
    """Kept results of a group at one size, by name."""
    kept = load_experiment_results(workbook).items()
    return {name: result for name, result in kept if result["group"] == group and result["size"] == size}


def load_experiment_results(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All kept results by name, in the order in which the experiments are defined, others after them."""
    names = list(load_experiments(workbook.root / "experiments.toml"))
    place = lambda path: (names.index(path.stem) if path.stem in names else len(names), path.stem)
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((workbook.results / "experiments").glob("*.json"), key=place)}
