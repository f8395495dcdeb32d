"""A file as people bring it, taken apart into records: encodings, JSON of every shape, tables, plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind_core.conversations.broken import Broken, Record, explain_broken, read_wrapped
from minimind_core.conversations.tables import (
    ASKED,
    cells,
    dialogue_text,
    excel_records,
    is_excel,
    names_columns,
    table_records,
)
from minimind_core.errors import WorkbookError

# Beginnings of files that are no dialogues, whatever their names say.
FOREIGN_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "Git LFS 的指针，不是数据本身", "请运行 git lfs pull，或重新下载"),
    (b"<!doctype html", "网页（HTML）", "多半是下载链接打开的页面。请重新下载文件本身"),
    (b"<html", "网页（HTML）", "多半是下载链接打开的页面。请重新下载文件本身"),
    (b"<?xml", "XML 文件", "请导出成 JSONL、JSON 或 CSV"),
    (b"%pdf", "PDF", "请把里面的问答另存成文字"),
    (b"pk\x03\x04", "压缩包（zip，或 Word、.pth 等以它为壳的文件）", "请解压后选里面的数据文件"),
    (b"\x1f\x8b", "压缩包（gzip）", "请解压后再用"),
    (b"rar!", "压缩包（rar）", "请解压后再用"),
    (b"7z\xbc\xaf", "压缩包（7z）", "请解压后再用"),
    (b"\xfd7zxz", "压缩包（xz）", "请解压后再用"),
    (b"par1", "Parquet 表", "请用 pandas 读出来，另存成 JSONL"),
    (b"sqlite format 3", "SQLite 数据库", "请导出成 CSV"),
    (b"\xd0\xcf\x11\xe0", "旧版 Excel 或 Word 文件", "请另存为 .xlsx 或 CSV"),
    (b"\x89png", "图片", "请换成文字数据"),
    (b"\xff\xd8\xff", "图片", "请换成文字数据"),
    (b"\x80\x04", "Python 的 pickle 文件", "打开它可能运行别人的程序。请换成 JSONL"),
)
ROW_KEYS = "conversations|conversation|messages|instruction|query|question|prompt|chosen"
# one object that holds the list of records under another name than a record's own
HOLDER = re.compile(rf'\{{\s*"((?!(?:{ROW_KEYS})")[^"]+)"\s*:\s*\[\s*(?=[{{\[])')


@dataclass(frozen=True)
class Source:
    """A file taken apart."""

    path: Path
    encoding: str
    container: str
    items: Sequence[Record | Broken]


Parts = tuple[str, list[Record | Broken]]  # the container's name and what is in it


def read_source(path: Path) -> Source:
    """Take a file apart; one that holds no dialogues at all is refused as what it is."""
    if path.is_dir():
        raise WorkbookError(f"{path}: 这是文件夹。请写出里面的数据文件。")
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到数据文件。请检查路径，或先运行 minimind build-dataset。")
    raw = path.read_bytes()
    if is_excel(path, raw):
        return Source(path, "UTF-8", "Excel 表", excel_records(path))
    refuse_foreign(path, raw)
    text, encoding = decode(raw)
    return Source(path, encoding, *take_apart(path, text))


def refuse_foreign(path: Path, raw: bytes) -> None:
    """Name a file that is no data as what it is."""
    start = raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:32].lower()
    for magic, what, remedy in FOREIGN_FILES:
        if start.startswith(magic):
            raise WorkbookError(f"{path}:1: 这不是对话数据，而是{what}。{remedy}。")
    words = raw.split()
    if len(words) == 1 and re.fullmatch(rb"[\w./\\:~-]*[/\\][\w./\\-]+", words[0]):
        raise WorkbookError(f"{path}:1: 这不是对话数据，里面只有一个路径。请换成它所指的那个文件。")


def decode(raw: bytes) -> tuple[str, str]:
    """A file's text and the name of its encoding; bytes that fit it nowhere become lone surrogates."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="surrogateescape"), "UTF-16"
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(raw) > 8 and raw[offset::2][:200].count(0) > 0.4 * len(raw[offset::2][:200]):
            return raw.decode(name, errors="surrogateescape"), "UTF-16"
    mark = raw.startswith(b"\xef\xbb\xbf")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    foreign = [line for line in raw.splitlines() if not line.isascii()]
    if sum(not is_utf8(line) for line in foreign) > len(foreign) / 2:
        text = raw.decode("gb18030", errors="replace")
        if text.count("\ufffd") < 0.01 * len(text) + 1:
            return text, "GB18030（GBK）"
    return raw.decode("utf-8", errors="surrogateescape"), "带 BOM 的 UTF-8" if mark else "UTF-8"


def is_utf8(raw: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def take_apart(path: Path, text: str) -> Parts:
    """Decide what holds the records, and read them."""
    text = text.replace("\r\n", "\n")
    text = text if "\n" in text else text.replace("\r", "\n")
    start = text.lstrip()
    first, _, rest = start.partition("\n")
    if path.suffix.lower() in (".csv", ".tsv"):
        return table_records(text)
    if start[:1] in ("{", "["):
        return json_records(text, first, rest)
    lines = text.split("\n")
    if any(map(ASKED.match, lines)) and not any(line.lstrip().startswith("{") for line in lines):
        return "问答文字", list(dialogue_text(lines))
    if names_columns(cells(first.strip())):
        return table_records(text)
    return "JSONL", list(line_records(text))


def json_records(text: str, first: str, rest: str) -> Parts:
    """JSON in any shape: lines, an array, one object that holds a list, objects over several lines."""
    alone, value = parses(first)
    if alone and rest.strip():
        return "JSONL", list(line_records(text))
    whole, value = (alone, value) if alone else parses(text)
    return whole_value(text, value, alone) if whole else broken_value(text, first)


def broken_value(text: str, first: str) -> Parts:
    """Records of a text that is no single JSON value, or one with a mistake in it."""
    start = len(text) - len(text.lstrip())
    if text[start] == "[":
        return "JSON 数组", list(walk(text, start + 1))
    if is_bare_array(text):
        return "没有方括号的 JSON 数组", list(walk(text, start))
    if held := HOLDER.match(text, start):
        return f"装着列表的 JSON（{held[1]}）", list(walk(text, held.end()))
    if re.match(r'\{\s*"', text[start:]) and first.strip() == "{" or opens_object(text, start):
        return "分成多行写的 JSON", list(walk(text, start))
    return "JSONL", list(line_records(text))


def is_bare_array(text: str) -> bool:
    """Whether every line but the last ends with a comma: an array that has lost its brackets."""
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    return len(lines) > 1 and all(line.endswith("},") and parses(line[:-1])[0] for line in lines[:-1])


def whole_value(text: str, value: Any, alone: bool) -> Parts:
    """Records of a file that is one JSON value; `alone` if it stands on one line."""
    if isinstance(value, list) and not (value and all(map(is_turn, value))):
        return "JSON 数组", list(walk(text, text.index("[") + 1))
    if held := HOLDER.match(text, len(text) - len(text.lstrip())):
        return f"装着列表的 JSON（{held[1]}）", list(walk(text, held.end()))
    if isinstance(value, dict):  # the list stands behind other fields: its items have no line of their own
        lists = [name for name, items in value.items() if is_list_of_objects(items)]
        if len(lists) == 1 and not re.fullmatch(ROW_KEYS, lists[0]):
            return f"装着列表的 JSON（{lists[0]}）", [Record(1, item) for item in value[lists[0]]]
    if alone:
        return "JSONL", [Record(1, value, text.strip())]
    return "分成多行写的 JSON", [Record(1, value)]


def is_list_of_objects(value: Any) -> bool:
    """Whether a value is a list of JSON objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def parses(text: str) -> tuple[bool, Any]:
    """Whether a text is JSON, and its value."""
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


def opens_object(text: str, start: int) -> bool:
    """Whether a text begins with an object that goes on over several lines."""
    try:
        end = json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return False
    return "\n" in text[start:end]


def is_turn(value: Any) -> bool:
    """Whether a value looks like one message."""
    return isinstance(value, dict) and bool(
        {"role", "from"} & set(value) and {"content", "value"} & set(value)
    )


def walk(text: str, place: int) -> Iterator[Record | Broken]:
    """JSON values one after the other from a place on, with or without commas.

    After one that cannot be read it goes on at the next line that begins as the first value did.
    """
    decoder, line, counted, indent = json.JSONDecoder(), 1, 0, None
    while True:
        place = re.compile(r"[\s,]*").match(text, place).end()
        if place >= len(text) or text[place] in "]}":
            return
        line, counted = line + text.count("\n", counted, place), place
        if indent is None:
            indent = text[text.rfind("\n", 0, place) + 1 : place]
        try:
            value, place = decoder.raw_decode(text, place)
            yield Record(line, value)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "pos", place)
            again = re.compile(rf"^{re.escape(indent)}\{{", re.MULTILINE).search(text, max(at, place + 1))
            end = again.start() if again else len(text)
            yield Broken(line + text.count("\n", place, at), explain_broken(text[place:end].rstrip(" \n,]")))
            if not again:
                return
            place = again.start()


def line_records(text: str) -> Iterator[Record | Broken]:
    """JSONL, split at line feeds alone; a text that was broken into several lines is one problem."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line, number = lines[number], number + 1
        if not line.strip():
            continue
        good, value = parses(line)
        if any("\udc80" <= letter <= "\udcff" for letter in line):
            yield other_encoding(number, line)
        elif good:
            yield Record(number, value, line)
        elif used := read_wrapped(lines[number - 1 : number + 20]):
            yield Broken(
                number,
                f"不是合法的 JSON：一条对话断成了 {used} 行（到第 {number + used - 1} 行），文字里直接换了行",
                "请把换行写成 \\n，放回同一行",
            )
            number += used - 1
        else:
            yield Broken(number, explain_broken(line))


def other_encoding(number: int, line: str) -> Record | Broken:
    """A line that does not fit the file's encoding: it is in GB18030, or was cut inside a character."""
    raw = line.encode("utf-8", errors="surrogateescape")
    try:
        good, value = parses(raw.decode("gb18030"))
    except UnicodeDecodeError:
        good = False
    if good:
        return Record(number, value, recoded=True)
    return Broken(
        number, "不是 UTF-8：这一行在一个汉字的中间断了，或混进了别的编码", "请从原始文件重新复制这一行"
    )
