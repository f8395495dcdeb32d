"""Kept results of experiments: which file, whether it still holds, which belong together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from minimind_core import conversations
from minimind_core.config import Workbook
from minimind_core.experiments.settings import Experiment, load_experiments, resolve, sized
from minimind_core.files import read_json, read_record
from minimind_core.training.run_files import base_sha256, file_sha256

NOT_HASHED = ("name", "group", "about", "english", "lesson", "seed")  # the seed counts as it is used


def files_behind(workbook: Workbook, experiment: Experiment) -> list[Path]:
    """The files that training rows and questions are made from."""
    package = Path(conversations.__file__).parent / "data"
    own = (path for path in workbook.texts.glob("*.toml") if path.name != "fields.toml")  # for collecting
    texts = [*sorted(package.iterdir()), *sorted(own)]
    texts += [*sorted(workbook.texts.glob("*.txt")), *sorted(workbook.texts.glob("unknown*.jsonl"))]
    texts += [workbook.texts / "everyday.jsonl", workbook.questions(experiment.split), workbook.facts]
    if experiment.kdconv or experiment.recipe != "default":
        texts += [workbook.root / "dataset" / name for name in ("kdconv_sample.json", "health.csv")]
    return texts


def content_hash(workbook: Workbook, experiment: Experiment) -> str:
    """Changes with what the result depends on, the code and downloaded KdConv files aside.

    That is: settings, facts, the texts that questions are made from, the test questions, persona, seed and
    base.
    """
    settings = resolve(experiment, workbook.mix, workbook.draws)
    about = {k: v for k, v in dataclasses.asdict(experiment).items() if k not in NOT_HASHED}
    texts = files_behind(workbook, experiment)
    known = [file_sha256(path) for path in texts if path.is_file()] + [base_sha256(workbook.base)]
    parts = [
        dataclasses.asdict(settings),
        dataclasses.asdict(workbook.persona),
        about,
        workbook.seed if experiment.seed is None else experiment.seed,
        known,
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def result_file(workbook: Workbook, name: str, size: str = "default") -> Path:
    """Where an experiment's figures are kept."""
    return workbook.results / "experiments" / (f"{name}.json" if size == "default" else f"{name}_{size}.json")


def finished(workbook: Workbook, experiment: Experiment, size: str = "default") -> dict[str, Any] | None:
    """The kept result, if it was made with these very settings."""
    path = result_file(workbook, experiment.name, size)
    result = read_record(path)
    return result if still_holds(workbook, experiment, result) else None


def still_holds(workbook: Workbook, experiment: Experiment, result: dict[str, Any]) -> bool:
    """Whether a result was made with the experiment's present settings and data."""
    if not result:
        return False
    return result["content_hash"] == content_hash(workbook, sized(experiment, result["size"]))


def load_experiment_results(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All kept results that still hold, by name, in the order in which the experiments are defined.

    Left out are those of other facts, texts, settings or another base. After them come results of no defined
    experiment on this base.
    """
    defined, base = load_experiments(workbook.root / "experiments.toml"), base_sha256(workbook.base)
    place = {name: number for number, name in enumerate(defined)}
    found = {}
    for path in (workbook.results / "experiments").glob("*.json"):
        result = read_json(path)
        item = defined.get(result["name"])
        same_base = result["run"]["base_sha256"] == base
        if still_holds(workbook, item, result) if item else same_base:
            found[path.stem] = result
    return dict(sorted(found.items(), key=lambda pair: (place.get(pair[0], len(place)), pair[0])))


def in_group(workbook: Workbook, group: str, size: str = "default") -> dict[str, dict[str, Any]]:
    """Kept results of a group at one size, by name."""
    kept = load_experiment_results(workbook).items()
    return {name: result for name, result in kept if result["group"] == group and result["size"] == size}
