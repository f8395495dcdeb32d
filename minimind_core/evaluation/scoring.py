"""Evaluate a run and keep the result as a file that README, notebooks and report quote."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import minimind_core
from minimind_core.config import PROFILES, Workbook
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import dialogue
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.baselines import BASELINES, baseline
from minimind_core.evaluation.grading import Graded, Grader, summarize
from minimind_core.evaluation.metrics import mcnemar
from minimind_core.evaluation.suites import Question, load_suites
from minimind_core.files import read_json, read_record, write_json
from minimind_core.inference.assistant import Assistant
from minimind_core.training.batches import encode_rows, make_batch
from minimind_core.training.run_files import base_sha256, environment, file_sha256, read_run, run_folder
from minimind_core.training.trainer import mean_loss

Suites = Mapping[str, Sequence[Question]]


def results_file(workbook: Workbook, name: str) -> Path:
    """Where the scores of a run are kept."""
    return workbook.results / f"run_{name}.json"


def traced(workbook: Workbook) -> dict[str, str]:
    """What a result was made from: results of other data or another base are not comparable."""
    data, made = dataset_file(workbook, "train"), environment()
    return {
        "facts_sha256": file_sha256(workbook.facts), "base_sha256": base_sha256(workbook.base),
        "data_sha256": file_sha256(data) if data.is_file() else "",
        **{key: made[key] for key in ("minimind_core", "git_commit")},
    }  # fmt: skip


def ask_suites(
    workbook: Workbook, assistant: Assistant, suites: Suites, bar: Any = None
) -> tuple[list[Graded], list[Graded]]:
    """Every question answered in the model's own words and, again, after the assistant's claim check (an
    empty list without one).

    A dialogue of several turns is led twice, since its later turns rest on the answers before.
    """
    grader, questions = Grader(workbook), [question for rows in suites.values() for question in rows]
    report = bar.update if bar is not None else lambda done: None

    def ask(by: Assistant, rows: Sequence[Question]) -> list[Graded]:
        answers = by.converse([q.turns for q in rows], report)
        return [grader.grade(q, own[-1]) for q, own in zip(rows, answers, strict=True)]

    own = ask(assistant.unchecked(), questions)
    if assistant.check is None:
        return own, []
    longer = [q for q in questions if len(q.turns) > 1]
    again = iter(ask(assistant, longer))
    checked = []
    for graded in own:
        if len(graded.question.turns) > 1:
            checked.append(next(again))
            continue
        messages = [{"role": "user", "content": graded.question.turns[0]}]
        checked.append(grader.grade(graded.question, assistant.checked(messages, graded.answer)))
    return own, checked


def fingerprint(workbook: Workbook, name: str, questions: Sequence[Question]) -> str:
    """Changes with anything that a run's scores rest on: adapter, base, data, questions, code."""
    package, run = Path(minimind_core.__file__).parent, run_folder(workbook, name)
    files = [run / "adapter.safetensors", run / "run.json", workbook.facts, dataset_file(workbook, "train")]
    files += [*workbook.base.glob("*.json"), *workbook.texts.rglob("*")]
    files += [path for path in package.rglob("*") if "__pycache__" not in path.parts]
    known = [file_sha256(path) for path in sorted(files) if path.is_file()]
    parts = [known, base_sha256(workbook.base), repr(workbook.persona), [repr(q) for q in questions]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def kept_result(file: Path, rests_on: str) -> dict[str, Any] | None:
    """A result of this fingerprint, if there is one."""
    kept = read_record(file)
    return kept if kept.get("rests_on") == rests_on else None


def progress_bar(name: str, total: int) -> tqdm:
    """A bar in a terminal or a notebook, gone at the end."""
    in_notebook = "ipykernel" in sys.modules
    where = {"file": sys.stdout, "mininterval": 2, "disable": False} if in_notebook else {"disable": None}
    return tqdm(total=total, desc=f"测试 {name}", unit="题", leave=False, **where)


def evaluate_run(
    workbook: Workbook, name: str, profile: str | None = None, split: str = "test", *, reuse: bool = False
) -> dict[str, Any]:
    """Ask every suite, write report/results/run_NAME.json and return its content.

    `lookup` and `rules` are baselines without a model. `split="valid"` asks the validation questions and
    writes nothing. With `reuse` a kept result is returned if nothing that it rests on has changed.
    """
    suites = load_suites(workbook, PROFILES[profile or workbook.profile].test_questions, split)
    questions = [question for rows in suites.values() for question in rows]
    rests_on, file = fingerprint(workbook, name, questions), results_file(workbook, name)
    if reuse and split == "test" and (kept := kept_result(file, rests_on)):
        return kept
    started, extra, checked = time.monotonic(), {}, []
    with progress_bar(name, len(questions)) as bar:
        if name in BASELINES:
            answerer, grader = baseline(workbook, name), Grader(workbook)
            own = [grader.grade(question, answerer.answer(question)) for question in questions]
        else:
            assistant = Assistant.load(workbook, name)
            own, checked = ask_suites(workbook, assistant, suites, bar)
            extra = {"everyday_loss": everyday_loss(workbook, assistant)}
    settings = trained_settings(workbook, name) or {"name": name}
    result = {
        "run": settings, "made_from": traced(workbook), "rests_on": rests_on, "seed": workbook.seed,
        "split": split, "seconds": time.monotonic() - started, **summarize(own), **extra,
        "answers": [item.as_dict() for item in own],
    }  # fmt: skip
    if checked:
        result["checked_scores"] = summarize(checked)["scores"]
        for row, item in zip(result["answers"], checked, strict=True):
            if item.answer.text != row["answer"]:
                row |= {"checked": item.answer.text, "checked_right": item.right}
    if split == "test":
        write_json(file, result)
    return result


def everyday_loss(workbook: Workbook, assistant: Assistant) -> float | None:
    """Mean loss on the base's own answers to everyday prompts, nats a token.

    What a run adds to the base's has been forgotten.
    """
    card = workbook.base / "training.json"
    pairs = read_record(card).get("everyday", {}).get("answers")
    if not pairs:
        return None
    known = [dialogue(p["question"], p["answer"]) for p in pairs if p["answer"].strip()]
    rows = encode_rows(known, assistant.tokenizer)
    return mean_loss(assistant.model, [make_batch(rows[i : i + 32], 0) for i in range(0, len(rows), 32)])


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each suite the questions that just one of two results got right, and McNemar's p-value.

    Both asked the same questions.
    """

    def verdicts(result: dict[str, Any]) -> dict[tuple, bool]:
        return {
            (a["suite"], *a["before"], a["question"], a["about"], a["expected"]): a["right"]
            for a in result["answers"]
        }

    own, other = verdicts(first), verdicts(second)
    found = {}
    for suite in {key[0]: None for key in own}:
        shared = [key for key in own if key[0] == suite and key in other]
        only = (
            sum(own[key] and not other[key] for key in shared),
            sum(other[key] and not own[key] for key in shared),
        )
        found[suite] = {"n": len(shared), "only_first": only[0], "only_second": only[1], "p": mcnemar(*only)}
    return found


def score_columns(results: dict[str, dict[str, Any]], names: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Scores to be set side by side, by label: of the named results that there are, or of all.

    Own words before checked ones.
    """
    columns = {}
    for name in [name for name in names or results if name in results]:
        columns[RUN_LABELS.get(name, name)] = results[name]["scores"]
        if "checked_scores" in results[name]:
            columns[f"{RUN_LABELS.get(name, name)} + 核对"] = results[name]["checked_scores"]
    return columns


RUN_LABELS = {"base": "基座", "lookup": "查表", "rules": "规则（没有模型）"}


def trained_settings(workbook: Workbook, name: str) -> dict[str, Any]:
    """What run.json tells of a run as it is now; empty where nothing was trained."""
    folder = run_folder(workbook, name)
    return read_run(folder) if (folder / "run.json").is_file() else {}


def is_stale(workbook: Workbook, result: dict[str, Any]) -> bool:
    """Whether the run was trained again after it was scored."""
    now = trained_settings(workbook, result["run"]["name"])
    return bool(now) and now != result["run"]


def results_here(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All evaluated runs on the workbook's facts and base, by name."""
    origin = traced(workbook)
    own = {key: origin[key] for key in ("facts_sha256", "base_sha256")}
    found = {path.stem.removeprefix("run_"): read_json(path) for path in workbook.results.glob("run_*.json")}
    return {
        name: result
        for name, result in found.items()
        if {key: result.get("made_from", {}).get(key) for key in own} == own
    }


def load_results(workbook: Workbook) -> dict[str, dict[str, Any]]:
    """All evaluated runs on the workbook's facts and base, the base first.

    Results of other data are left out.
    """
    first = ("base", *BASELINES)
    results = results_here(workbook)
    if not results:
        raise WorkbookError(
            f"{workbook.results}: 还没有这份数据的测试结果。请先运行 minimind evaluate 或笔记本 06、07。"
        )
    return dict(
        sorted(
            results.items(),
            key=lambda item: (first.index(item[0]) if item[0] in first else len(first), item[0]),
        )
    )
