"""The Chinese PDF report: results files in, 大作业报告.pdf out."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pylopdf_fonts_zh_cn
import typst

from minimind_core.collection.facts import read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.mixing import DETAIL_NAMES, FILES, KIND_NAMES, PARTS, dataset_file, exposures
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.metrics import refuses
from minimind_core.evaluation.quiz import read_quiz
from minimind_core.evaluation.scoring import is_stale, load_results, score_columns, traced
from minimind_core.evaluation.suites import KNOWN, SUITES, suite_labels, suites_with_questions
from minimind_core.files import read_json, read_record, replacing, write_json
from minimind_core.inference.decoding import Decoding
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.lora import adapter_config
from minimind_core.reporting import figures
from minimind_core.reporting.drawings import architecture_figure, fact_figure
from minimind_core.reporting.fact_way import first_row, follow_fact
from minimind_core.reporting.glyphs import missing_characters
from minimind_core.reporting.sections import SECTIONS, read_section, section_file
from minimind_core.training.run_files import file_sha256, read_metrics, run_folder

REPORT_NAME = "大作业报告.pdf"
SHOWN_LOSSES = 9  # validation losses in the table of the report


def dataset_statistics(workbook: Workbook) -> dict[str, Any]:
    """Rows of each file, facts by attribute and the exposures of a fact in one epoch.

    Also written to results.
    """
    splits = {name: read_conversations(dataset_file(workbook, name)) for name in FILES}
    seen = exposures(splits["train"])
    attributes = Counter(attribute for _, attribute in seen)
    facts = read_facts(workbook.facts)
    dates = [fact.retrieved for fact in facts]
    statistics = {
        "rows": {name: len(rows) for name, rows in splits.items()},
        "facts": len(seen),
        "attributes": dict(attributes.most_common()),
        "subjects": len({fact.subject for fact in facts}),
        "sites": len({urlsplit(fact.source_url).netloc for fact in facts}),
        "retrieved": [min(dates), max(dates)],
        "kinds": dict(Counter(row.meta.get("kind", "") for row in splits["train"])),
        "exposures_per_epoch": {
            "least": min(seen.values(), default=0),
            "most": max(seen.values(), default=0),
        },
        "answer_characters": sum(len(row.answer) for row in splits["train"]),
    }
    write_json(workbook.results / "dataset.json", statistics)
    return statistics


def sample_rows(workbook: Workbook) -> list[dict[str, str]]:
    """One training row of each kind, as the file holds it.

    Of several turns none, because they need their history.
    """
    rows: dict[str, Conversation] = {}
    for row in read_conversations(dataset_file(workbook, "train")):
        if len(row.conversations) == 2:
            rows.setdefault(row.meta.get("kind", ""), row)
    return [
        {"kind": kind, "question": rows[kind].question, "answer": rows[kind].answer}
        for kind in PARTS
        if kind in rows
    ]


def journey(workbook: Workbook) -> dict[str, Any]:
    """One fact and the first questions that are drawn from it."""
    rows = [
        row for row in read_conversations(dataset_file(workbook, "qa_train"))
        if len(row.conversations) == 2 and row.meta.get("way") in ("ask", "keywords", "confirm")
    ]  # fmt: skip
    first = first_row(workbook)
    key = (first.meta["subject"], first.meta["attribute"])
    fact = next(f for f in read_facts(workbook.facts) if (f.subject, f.attribute) == key)
    drawn = [row for row in rows if (row.meta["subject"], row.meta["attribute"]) == key]
    return {
        "fact": ",".join(dataclasses.astuple(fact)),
        "drawn": [{"question": row.question, "answer": row.answer} for row in drawn[:4]],
        "line": json.dumps({"conversations": first.messages}, ensure_ascii=False),
    }


def shown_in_class(workbook: Workbook, run: str) -> list[dict[str, Any]]:
    """The class's questions with the run's answers, as notebook 07 has kept them for these data."""
    kept = read_record(workbook.results / "show.json")
    same = ("facts_sha256", "base_sha256")
    origin = traced(workbook)
    fits = kept.get("run") == run and all(kept["made_from"][key] == origin[key] for key in same)
    return kept["answers"] if fits else []


def examples(result: dict[str, Any], suites: Sequence[str], right: bool, count: int) -> list[dict[str, Any]]:
    """Evenly spaced answers with this verdict, one suite after another."""
    chosen = []
    for suite in suites:
        rows = [a for a in result["answers"] if a["suite"] == suite and a["right"] == right]
        chosen += rows[:: max(1, len(rows) // count)][:count]
    return chosen


def mistakes_by_cause(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Causes of wrong answers, the most frequent first.

    Each with its number, how many of them the check replaces, and an example.
    """
    by_cause: dict[str, list[dict[str, Any]]] = {}
    for answer in result["answers"]:
        if answer.get("cause"):
            by_cause.setdefault(answer["cause"], []).append(answer)
    return [
        {
            "cause": cause,
            "n": len(rows),
            "caught": sum(refuses(row.get("checked", "")) for row in rows),
            **rows[len(rows) // 2],
        }
        for cause, rows in sorted(by_cause.items(), key=lambda item: -len(item[1]))
    ]


def shown_losses(folder: Path) -> list[dict[str, str]]:
    """The first and the last of a run's metrics with a validation loss, and some evenly between them."""
    rows = [row for row in read_metrics(folder / "metrics.csv") if row["valid_loss"]]
    if len(rows) <= SHOWN_LOSSES:
        return rows
    last = SHOWN_LOSSES - 1
    return [rows[round(i * (len(rows) - 1) / last)] for i in range(SHOWN_LOSSES)]


def report_data(workbook: Workbook, run: str) -> dict[str, Any]:
    """Everything report.typ reads; numbers come from results files only."""
    results = load_results(workbook)
    if run not in results:
        raise WorkbookError(
            f"{workbook.results}: 没有运行“{run}”在这份数据上的测试结果。"
            f"请先运行 minimind evaluate --run {run}。"
        )
    result = results[run]
    if is_stale(workbook, result):
        raise WorkbookError(
            f"运行“{run}”在上次打分之后又训练过，分数已经过时。请先运行 minimind evaluate --run {run}。"
        )
    known = ("facts", "follow") if result["scores"]["facts"]["n"] else ("drawn",)
    persona = workbook.persona
    declines = [name for name, suite in SUITES.items() if suite.rule == "declines"]
    return {
        "persona": {"name": persona.name, "scope": persona.scope, "topic": persona.topic},
        "team": persona.team, "members": list(workbook.members), "course": workbook.course,
        "class_name": workbook.class_name, "date": workbook.date, "student_ids": list(workbook.student_ids),
        "journey": journey(workbook), "show": shown_in_class(workbook, run),
        "dataset": read_json(workbook.results / "dataset.json"),
        "samples": sample_rows(workbook), "run": result["run"],
        "suites": suites_with_questions([result["scores"]], suite_labels()), "known": list(KNOWN),
        "results": {
            "微调后" + label.removeprefix(run) if label.startswith(run) else label: scores
            for label, scores in score_columns(results, ("base", "lookup", "rules", run)).items()
        },
        "scores": result["scores"],
        "checked": result.get("checked_scores", result["scores"]), "details": result["details"],
        "metrics": shown_losses(run_folder(workbook, run)),
        "identity": examples(result, ("identity",), True, 5) + examples(result, ("identity",), False, 3),
        "known_right": examples(result, known, True, 4),
        "mistakes": examples(result, KNOWN, False, 2)[:6], "causes": mistakes_by_cause(result),
        "declined": examples(result, declines, True, 1) + examples(result, declines, False, 1),
        "sections": {name: read_section(section_file(workbook, name)) for name in SECTIONS},
        "penalty": Decoding().repetition_penalty, "ways": DETAIL_NAMES, "kinds": KIND_NAMES,
    }  # fmt: skip


def build_figures(workbook: Workbook, run: str) -> list[Path]:
    """All pictures of the report."""
    folder = run_folder(workbook, run)
    loss = figures.loss_figure(read_metrics(folder / "metrics.csv"), read_quiz(folder))
    columns = score_columns(load_results(workbook), ("base", "lookup", "rules", run))
    rows = read_conversations(dataset_file(workbook, "train"))
    network = architecture_figure(
        load_base(workbook.base)[0].config, adapter_config(folder / "adapter.safetensors")
    )
    return [
        figures.save_figure(loss, workbook, "loss"),
        figures.save_figure(figures.scores_figure(columns), workbook, "scores"),
        figures.save_figure(figures.dataset_figure(rows), workbook, "dataset"),
        figures.save_figure(network, workbook, "architecture"),
        figures.save_figure(fact_figure(follow_fact(workbook, run)), workbook, "fact"),
    ]


def build_report(workbook: Workbook, run: str = "main") -> Path:
    """Compile report/report.typ to report/大作业报告.pdf; a warning (a missing font) is an error."""
    source = workbook.root / "report" / "report.typ"
    if not source.is_file():
        raise WorkbookError(f"{source}: 找不到报告模板。请从仓库恢复这个文件。")
    check_names(workbook)
    dataset_statistics(workbook)
    data = report_data(workbook, run)
    build_figures(workbook, run)
    fonts = [str(Path(pylopdf_fonts_zh_cn.sans_path()).parent)]
    inputs = {"data": json.dumps(data, ensure_ascii=False)}
    pdf, warnings = typst.compile_with_warnings(
        str(source),
        root=str(workbook.root),
        font_paths=fonts,
        ignore_system_fonts=True,
        sys_inputs=inputs,
        timestamp=0,
    )
    if warnings:
        raise WorkbookError(f"{source}: 排版有警告：{warnings[0].message}")
    target = workbook.root / "report" / REPORT_NAME
    with replacing(target) as temporary:
        temporary.write_bytes(pdf)
    made = {"report_sha256": file_sha256(target), "results": results_digest(workbook)}
    write_json(workbook.results / "report.json", made)
    return target


def check_names(workbook: Workbook) -> None:
    """Refuse names on the cover that the font cannot show."""
    persona = workbook.persona
    named = {
        "[persona] name": persona.name, "[project] team": persona.team, "[project] topic": persona.topic,
        "[project] course": workbook.course, "[project] members": "".join(workbook.members),
    }  # fmt: skip
    for key, text in named.items():
        if missing := missing_characters(text):
            raise WorkbookError(
                f"{workbook.root / 'workbook.toml'}: {key} 里的 {' '.join(missing)} 字体里没有，"
                "报告上会印成空框。请换成别的写法（例如拼音）。"
            )


def results_digest(workbook: Workbook) -> dict[str, str]:
    """Each kept result of a run with its sha256: what a report was made from."""
    return {path.name: file_sha256(path) for path in sorted(workbook.results.glob("run_*.json"))}
