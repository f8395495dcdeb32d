"""What an experiment changes, and all of its settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from minimind_core.config import PROFILES, Draws, Mix, Profile
from minimind_core.errors import WorkbookError
from minimind_core.files import read_table
from minimind_core.inference.decoding import Decoding

Settings = Mapping[str, Any]


Record = TypeVar("Record")


LOG_BATCH = 32  # conversations a step in the log


FULL_QUESTIONS = 100


@dataclass(frozen=True)
class Experiment:
    """What one experiment changes; every table holds fields of the settings of that name."""

    name: str
    group: str
    about: str  # one sentence for people
    english: str = ""  # the same in English, where an English table shows it
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
    """The package's experiments.toml and a team's own file.

    A group's `defaults` table holds for all its members; with `steps` each member also changes what those
    before it do.
    """
    package = tomllib.loads((files(__package__) / "experiments.toml").read_text(encoding="utf-8"))
    found = {}
    for tables in (package, read_table(extra) if extra else {}):
        for title, group in tables.items():
            settings, steps = group.pop("defaults", {}), group.pop("steps", False)
            for name, own in group.items():
                try:
                    changes = merged(settings, own)
                    found[name] = Experiment(name=name, group=title, **changes)
                    resolve(found[name])
                except (AttributeError, TypeError, ValueError) as error:
                    raise WorkbookError(
                        f"experiments.toml: [{name}] 里有不认识或不合适的设置（{error}）。"
                    ) from error
                settings = changes if steps else settings
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
    """The experiment at a named size.

    `full` takes all rows and facts, and as many conversations a step as the log had.
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
