"""Fact rows: the one table that questions are made from."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind_core.errors import WorkbookError
from minimind_core.files import write_text

COLUMNS = ("subject", "attribute", "value", "source_url", "retrieved")
LONGEST_VALUE = 40  # characters; longer values are sentences, not facts


@dataclass(frozen=True)
class Fact:
    """One statement: `attribute` of `subject` is `value`, found at `source_url` on ISO date `retrieved`."""

    subject: str
    attribute: str
    value: str
    source_url: str
    retrieved: str


def read_facts(path: Path) -> list[Fact]:
    """Read and check facts.csv; the first problem is reported with its line."""
    if not path.is_file():
        raise WorkbookError(
            f"{path}: 找不到事实表。请检查 workbook.toml 的 [data] facts，或先运行 minimind collect。"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkbookError(f"{path}: 不是 UTF-8 编码。用 Excel 保存时请选“CSV UTF-8”。") from error
    with io.StringIO(text, newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise WorkbookError(
                f"{path}:1: 表头应为 {','.join(COLUMNS)}，实际为 {','.join(reader.fieldnames or ())}。"
            )
        facts: list[Fact] = []
        first_line: dict[tuple[str, str], int] = {}
        for row in reader:
            place = f"{path}:{reader.line_num}"
            fact = check_row(row, place)
            key = (fact.subject, fact.attribute)
            if key in first_line:
                raise WorkbookError(
                    f"{place}: “{key[0]}”的“{key[1]}”已在第 {first_line[key]} 行出现。请保留一行。"
                )
            first_line[key] = reader.line_num
            facts.append(fact)
    if not facts:
        raise WorkbookError(f"{path}: 事实表是空的。请至少写一行事实。")
    return facts


def write_facts(path: Path, facts: Sequence[Fact]) -> None:
    """Write a facts.csv."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(fact, name) for name in COLUMNS] for fact in facts)
    write_text(path, lines.getvalue())


def check_row(row: dict[str, str | None], place: str) -> Fact:
    """Turn one CSV row into a Fact, or raise with its place."""
    if None in row or any(value is None for value in row.values()):
        raise WorkbookError(f"{place}: 列数不是 {len(COLUMNS)}。值里有逗号时请用英文双引号括起来。")
    values = {name: value.strip() for name, value in row.items()}
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise WorkbookError(f"{place}: {'、'.join(empty)} 是空的。请补上，或删去这一行。")
    if len(values["value"]) > LONGEST_VALUE:
        raise WorkbookError(f"{place}: 值超过 {LONGEST_VALUE} 个字。请拆成几条短的事实。")
    if not values["source_url"].startswith(("http://", "https://")):
        raise WorkbookError(f"{place}: source_url 应以 http:// 或 https:// 开头。")
    try:
        datetime.date.fromisoformat(values["retrieved"])
    except ValueError:
        raise WorkbookError(
            f"{place}: retrieved 应是 2026-01-31 这样的日期，实际为 {values['retrieved']}。"
        ) from None
    return Fact(**values)
