"""Fact rows: the one table that questions are made from."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind_core.errors import WorkbookError
from minimind_core.files import write_text

COLUMNS = ("subject", "attribute", "value", "source_url", "retrieved")
MEANING = {
    "subject": "对象",
    "attribute": "属性",
    "value": "值",
    "source_url": "来源网址",
    "retrieved": "查到的日期",
}
MOST_SHOWN = 30  # problems of a table that are listed at once
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
    """Read and check facts.csv; all problems are reported at once, each with its line."""
    if not path.is_file():
        raise WorkbookError(
            f"{path}: 找不到事实表。请检查 workbook.toml 的 [data] facts，或先运行 minimind collect。"
        )
    with io.StringIO(fact_text(path), newline="") as lines:
        reader = csv.reader(lines)
        check_header(path, next(reader, []))
        facts, problems = [], []
        first_line: dict[tuple[str, str], int] = {}
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if found := row_problems(cells):
                problems += [f"{path}:{line}: {problem}" for problem in found]
                continue
            fact = Fact(*(cell.strip() for cell in cells))
            key = (fact.subject, fact.attribute)
            if key in first_line:
                problems.append(
                    f"{path}:{line}: “{key[0]}”的“{key[1]}”已在第 {first_line[key]} 行出现。请保留一行。"
                )
                continue
            first_line[key] = line
            facts.append(fact)
    if problems:
        more = f"\n……还有 {len(problems) - MOST_SHOWN} 处。" if len(problems) > MOST_SHOWN else ""
        raise WorkbookError("\n".join(problems[:MOST_SHOWN]) + more)
    if not facts:
        raise WorkbookError(f"{path}: 事实表是空的。请至少写一行事实。")
    return facts


def fact_text(path: Path) -> str:
    """The table's text; other encodings are named with the way to save in Excel."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        save = "用 Excel 或 WPS 打开，另存为“CSV UTF-8（逗号分隔）”"
        if raw.startswith(b"PK"):
            raise WorkbookError(f"{path}: 这是 Excel 文件，不是 CSV。请{save}。") from error
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise WorkbookError(f"{path}: 这是 UTF-16 编码（“Unicode 文本”）。请{save}。") from error
        line = raw[: error.start].count(b"\n") + 1
        raise WorkbookError(f"{path}:{line}: 不是 UTF-8 编码，多半是 Excel 存的 GBK。请{save}。") from error


def check_header(path: Path, header: Sequence[str]) -> None:
    """Refuse a heading that is not the expected one, with advice for what it looks like."""
    names = [name.strip() for name in header]
    if names == list(COLUMNS):
        return
    wanted = ",".join(COLUMNS)
    joined = "".join(names)
    if "，" in joined:
        advice = "列之间是中文逗号“，”，要用英文逗号"
    elif "\t" in joined or ";" in joined:
        advice = "列之间要用英文逗号，不是制表符或分号"
    elif any("\u4e00" <= letter <= "\u9fff" for letter in joined):
        advice = f"表头要用英文，中文的意思是 {'、'.join(f'{MEANING[n]}＝{n}' for n in COLUMNS)}"
    elif sorted(names) == sorted(COLUMNS):
        advice = "列的顺序不对"
    else:
        advice = "请把第一行换成它"
    raise WorkbookError(f"{path}:1: 表头应为 {wanted}，实际为 {','.join(header)}。{advice}。")


def write_facts(path: Path, facts: Sequence[Fact]) -> None:
    """Write a facts.csv."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(fact, name) for name in COLUMNS] for fact in facts)
    write_text(path, lines.getvalue())


def row_problems(cells: Sequence[str]) -> list[str]:
    """Everything that is wrong with one row, each with its remedy."""
    if len(cells) != len(COLUMNS):
        full = (
            "（这一行里有中文逗号，列之间要用英文逗号）" if "，" in "".join(cells) and len(cells) < 5 else ""
        )
        return [f"有 {len(cells)} 列，应是 {len(COLUMNS)} 列{full}。值里有英文逗号时请用英文双引号括起来。"]
    values = dict(zip(COLUMNS, (cell.strip() for cell in cells), strict=True))
    problems = []
    if empty := [name for name, value in values.items() if not value]:
        problems.append(f"{'、'.join(empty)} 是空的。请补上，或删去这一行。")
    if broken := [name for name, value in values.items() if re.search(r"[\r\n\u2028\u2029\x85]", value)]:
        problems.append(f"{'、'.join(broken)} 里有换行。请写成一行，或拆成几条事实。")
    if formulas := [
        name for name, value in values.items() if value.startswith(("=", "#REF", "#N/A", "#VALUE", "#NAME"))
    ]:
        problems.append(f"{'、'.join(formulas)} 是表格公式或它的错误。请粘贴成数值。")
    if len(values["value"]) > LONGEST_VALUE:
        problems.append(f"值有 {len(values['value'])} 个字，超过 {LONGEST_VALUE}。请拆成几条短的事实。")
    if values["source_url"] and not values["source_url"].startswith(("http://", "https://")):
        problems.append(f"source_url 应以 http:// 或 https:// 开头，实际为 {values['source_url']}。")
    if values["retrieved"] and (problem := date_problem(values["retrieved"])):
        problems.append(problem)
    return problems


def date_problem(text: str) -> str:
    """What is wrong with a date, or an empty text."""
    with contextlib.suppress(ValueError):
        if datetime.date.fromisoformat(text).isoformat() == text:
            return ""
    found = re.fullmatch(r"(\d{4})\s*[/.年-]\s*(\d{1,2})\s*[/.月-]\s*(\d{1,2})\s*日?", text)
    if found:
        with contextlib.suppress(ValueError):
            date = datetime.date(*map(int, found.groups()))
            return f"日期 {text} 请写成 {date}；Excel 会自动改写日期，先把这一列设成“文本”格式。"
        return f"没有 {text} 这一天。请写成 2026-01-31 这样的日期。"
    return f"retrieved 应是 2026-01-31 这样的日期，实际为 {text}。"
