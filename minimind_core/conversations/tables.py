"""Tables and plain text as records: CSV, Excel, and questions and answers under `问：` and `答：`."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openpyxl

from minimind_core.conversations.broken import Broken, Record
from minimind_core.conversations.formats import KEYS
from minimind_core.errors import WorkbookError

ASKED = re.compile(r"\s*(?:\d+[.、)]\s*)?(?:问题?|提问|用户|[Qq]|[Qq]uestion)\s*\d*\s*[:：]\s*(.*)")
ANSWERED = re.compile(r"\s*(?:\d+[.、)]\s*)?(?:答案?|回答|助手|[Aa]|[Aa]nswer)\s*\d*\s*[:：]\s*(.*)")
QUESTION_HEADS = {"question", "query", "prompt", "instruction", "input", "user"}
ANSWER_HEADS = {"answer", "response", "completion", "output", "assistant"}


def names_columns(heads: Sequence[str]) -> bool:
    """Whether a table's first row names a column of questions and one of answers, in English or Chinese."""
    known = {KEYS.get(head, head) for head in heads}
    return bool(known & QUESTION_HEADS) and bool(known & ANSWER_HEADS)


def is_excel(path: Path, raw: bytes) -> bool:
    """Whether the bytes are those of an .xlsx."""
    if not raw.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def cells(line: str) -> list[str]:
    """A heading's cells, in lower case."""
    return [cell.strip().strip('"').lower() for cell in re.split(r"[\t,，]", line)]


def table_records(text: str) -> tuple[str, list[Record | Broken]]:
    """A CSV or TSV."""
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = "\t" if "\t" in first else "，" if "，" in first and "," not in first else ","
    with io.StringIO(text, newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        rows: list[tuple[int, list[str]]] = []
        start = 1
        for row in reader:
            rows.append((start, row))
            start = reader.line_num + 1
    return "CSV 表", list(named_columns(rows))


def excel_records(path: Path) -> list[Record | Broken]:
    """The first sheet of an .xlsx that has anything in it."""
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (
        KeyError,
        ValueError,
        zipfile.BadZipFile,
        openpyxl.utils.exceptions.InvalidFileException,
    ) as error:
        raise WorkbookError(f"{path}: 这个 Excel 文件读不出来（{error}）。请另存为 CSV UTF-8。") from error
    for sheet in book.worksheets:
        rows = [(number, list(map(cell_text, row))) for number, row in enumerate(sheet.values, 1)]
        if any(any(row) for _, row in rows):
            return list(named_columns(rows))
    return []


def cell_text(value: Any) -> str:
    """A cell as one reads it: whole numbers without .0, dates without a time of midnight."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).removesuffix(" 00:00:00")


def named_columns(rows: Sequence[tuple[int, list[str]]]) -> Iterator[Record | Broken]:
    """Rows of a table by the names of its columns; two columns without names are question and answer."""
    rows = [(line, row) for line, row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return
    line, first = rows[0]
    heads = [cell.strip().lower().strip("\ufeff") for cell in first]
    named = names_columns(heads)
    if not named and len(first) != 2:
        yield Broken(
            line, f"表有 {len(first)} 列，认不出哪列是问、哪列是答", "请把第一行写成 question,answer"
        )
        return
    heads = heads if named else ["question", "answer"]
    for line, row in rows[1:] if named else rows:
        if len(row) != len(heads):
            yield Broken(
                line, f"有 {len(row)} 列，应是 {len(heads)} 列", "文字里有逗号时，请用英文双引号括起来"
            )
        else:
            yield Record(line, dict(zip(heads, row, strict=True)))


def finished(pair: dict[str, str], start: int) -> Iterator[Record | Broken]:
    """What the lines from `start` on have given: a question with its answer, or one of the two alone."""
    if len(pair) == 2:
        yield Record(start, {key: text.strip() for key, text in pair.items()})
    elif pair:
        yield Broken(start, "有问没有答" if "question" in pair else "有答没有问", "请补上，或删去")


def dialogue_text(lines: Sequence[str]) -> Iterator[Record | Broken]:
    """`问：…` and `答：…`, one dialogue a pair; a line without either goes on with the one before."""
    pair: dict[str, str] = {}
    start, last = 1, ""
    for number, line in enumerate(lines, 1):
        asked, answered = ASKED.match(line), ANSWERED.match(line)
        if asked or (answered and "answer" in pair):
            yield from finished(pair, start)
            pair, start = {}, number
        if asked or answered:
            start = start if pair else number
            last = "question" if asked else "answer"
            pair[last] = (asked or answered)[1]
        elif last and pair:
            pair[last] += "\n" + line
        elif line.strip():
            yield Broken(
                number, f"这一行不在任何一问一答里：“{line.strip()[:20]}”", "请在前面写上“问：”或删去"
            )
    yield from finished(pair, start)
