"""The Chinese PDF report: results files in, 大作业报告.pdf out."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pylopdf_fonts_zh_cn
import typst

from minimind_core.config import Workbook
from minimind_core.conversations.mixing import FILES, dataset_file, exposures
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.confidence import confidence_file
from minimind_core.evaluation.generation import Decoding
from minimind_core.evaluation.quiz import read_quiz
from minimind_core.evaluation.scoring import asked, load_results, not_beyond_lookup, score_columns
from minimind_core.evaluation.suites import SUITES, suite_labels
from minimind_core.files import replacing, write_json
from minimind_core.modeling.fused import LoraProduct
from minimind_core.reporting import figures
from minimind_core.reporting.sections import SECTIONS, read_section, section_file
from minimind_core.training.runs import read_metrics, run_folder

REPORT_NAME = "大作业报告.pdf"


def dataset_statistics(workbook: Workbook) -> dict[str, Any]:
    """Rows of each file, facts by attribute and the exposures of a fact in one epoch; also written to results."""
    splits = {name: read_conversations(dataset_file(workbook, name)) for name in FILES}
    seen = exposures(splits["train"])
    attributes = Counter(attribute for _, attribute in seen)
    statistics = {
        "rows": {name: len(rows) for name, rows in splits.items()},
        "facts": len(seen),
        "attributes": dict(attributes.most_common()),
        "kinds": dict(Counter(row.meta.get("kind", "") for row in splits["train"])),
        "exposures_per_epoch": {"least": min(seen.values(), default=0), "most": max(seen.values(), default=0)},
        "answer_characters": sum(len(row.answer) for row in splits["train"]),
    }
    write_json(workbook.results / "dataset.json", statistics)
    return statistics


def sample_rows(workbook: Workbook) -> list[dict[str, str]]:
    """One training row of each kind, as the file holds it; of several turns none, because they need their history."""
    rows: dict[str, Conversation] = {}
    for row in read_conversations(dataset_file(workbook, "train")):
        if len(row.conversations) == 2:
            rows.setdefault(row.meta.get("kind", ""), row)
    return [{"kind": kind, "question": rows[kind].question, "answer": rows[kind].answer} for kind in ("music", "identity", "refusal") if kind in rows]


def examples(result: dict[str, Any], suites: tuple[str, ...], right: bool, count: int) -> list[dict[str, Any]]:
    """The first answers with this verdict, one suite after another."""
    chosen = []
    for suite in suites:
        rows = [a for a in result["answers"] if a["suite"] == suite and a["right"] == right]
        step = max(1, len(rows) // count)
        chosen += rows[::step][:count]
    return chosen


def report_data(workbook: Workbook, run: str) -> dict[str, Any]:
    """Everything report.typ reads; numbers come from results files only."""
    results = load_results(workbook)
    if run not in results:
        raise WorkbookError(f"{workbook.results}: 没有运行“{run}”的测试结果。请先运行 minimind evaluate --run {run}。")
    result = results[run]
    metrics = read_metrics(run_folder(workbook, run) / "metrics.csv")
    validated = [row for row in metrics if row["valid_loss"]]
    picks = [validated[round(i * (len(validated) - 1) / 8)] for i in range(9)] if len(validated) > 9 else validated
    topic, music = workbook.persona.topic, [suite for suite in SUITES if suite.startswith("music_")]
    return {
        "persona": {"name": workbook.persona.name, "scope": workbook.persona.scope, "topic": workbook.persona.topic},
        "team": workbook.persona.team, "members": list(workbook.members), "course": workbook.course,
        "dataset": json.loads((workbook.results / "dataset.json").read_text(encoding="utf-8")),
        "samples": sample_rows(workbook), "run": result["run"],
        "suites": asked([result["scores"]], suite_labels(topic)), "artists": list(workbook.artists),
        "results": score_columns(results, ("base", "retrieval", run)), "guarded": "own_scores" in result,
        "floor": result.get("floor"), "reverse_floor": result.get("reverse_floor"),
        "lost": [suite_labels(topic)[suite] for suite in not_beyond_lookup(results, run)], "details": result["details"],
        "metrics": picks,
        "identity": examples(result, ("identity",), True, 5) + examples(result, ("identity",), False, 3),
        "music": examples(result, ("music_held_out",), True, 6), "mistakes": examples(result, music, False, 2)[:6],
        "refusals": examples(result, ("refusal",), True, 3) + examples(result, ("refusal",), False, 3),
        "sections": {name: read_section(section_file(workbook, name)) for name in SECTIONS},
        "decoding": dataclasses.asdict(Decoding()), "code": inspect.getsource(LoraProduct),
    }  # fmt: skip


def build_figures(workbook: Workbook, run: str) -> list[Path]:
    """All pictures of the report."""
    folder, topic = run_folder(workbook, run), workbook.persona.topic
    path = confidence_file(workbook, run)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"chances": [], "floor": None, "reverse_floor": None}
    return [
        figures.save_figure(figures.confidence_figure(found), workbook, "confidence"),
        figures.save_figure(figures.loss_figure(read_metrics(folder / "metrics.csv"), read_quiz(folder), topic), workbook, "loss"),
        figures.save_figure(figures.scores_figure(score_columns(load_results(workbook)), topic), workbook, "scores"),
        figures.save_figure(figures.dataset_figure(read_conversations(dataset_file(workbook, "train")), topic), workbook, "dataset"),
    ]


def build_report(workbook: Workbook, run: str = "main") -> Path:
    """Compile report/report.typ to report/大作业报告.pdf; a warning (for example a missing font) is an error."""
    source = workbook.root / "report" / "report.typ"
    if not source.is_file():
        raise WorkbookError(f"{source}: 找不到报告模板。请从仓库恢复这个文件。")
    dataset_statistics(workbook)
    data = report_data(workbook, run)
    build_figures(workbook, run)
    fonts = [str(Path(pylopdf_fonts_zh_cn.sans_path()).parent)]
    inputs = {"data": json.dumps(data, ensure_ascii=False)}
    pdf, warnings = typst.compile_with_warnings(
        str(source), root=str(workbook.root), font_paths=fonts, ignore_system_fonts=True, sys_inputs=inputs, timestamp=0
    )
    if warnings:
        raise WorkbookError(f"{source}: 排版有警告：{warnings[0].message}")
    target = workbook.root / "report" / REPORT_NAME
    with replacing(target) as temporary:
        temporary.write_bytes(pdf)
    return target
