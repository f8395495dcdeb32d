"""Any training file to this project's conversations, with what was changed and what could not be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from minimind_core.conversations.broken import Broken, Record
from minimind_core.conversations.formats import convert
from minimind_core.conversations.messages import MARKED, Change, Unusable
from minimind_core.conversations.schema import Conversation, iterate_conversations
from minimind_core.conversations.sources import Source, read_source
from minimind_core.errors import WorkbookError


@dataclass(frozen=True)
class Row:
    """An imported conversation, its line, and what was changed; `text` if the line can stay as it is."""

    line: int
    conversation: Conversation
    format: str
    changes: tuple[Change, ...] = ()
    text: str | None = None


@dataclass(frozen=True)
class Imported:
    """A file's rows, and the places that give none."""

    source: Source
    rows: list[Row]
    problems: list[Broken]

    @property
    def formats(self) -> dict[str, list[int]]:
        """Lines of each format, in the order in which they appear."""
        found: dict[str, list[int]] = {}
        for row in self.rows:
            found.setdefault(row.format, []).append(row.line)
        return found

    @property
    def changes(self) -> dict[Change, list[int]]:
        """Lines of each change."""
        found: dict[Change, list[int]] = {}
        for row in self.rows:
            for change in dict.fromkeys(row.changes):
                found.setdefault(change, []).append(row.line)
        return found

    def faults(self) -> list[str]:
        """What keeps other programs from reading the file as JSONL of conversations, in a few words each."""
        found = [self.source.encoding + " 编码"] if "UTF-8" not in self.source.encoding else []
        found += [self.source.container] if self.source.container != "JSONL" else []
        foreign = {name: lines for name, lines in self.formats.items() if name != "conversations"}
        return found + [f"{name} 格式 {len(lines)} 条" for name, lines in foreign.items()]


def parse_native(text: str) -> Conversation | None:
    """The conversation of a line that is written as this project writes it."""
    try:
        return Conversation.model_validate_json(text)
    except ValidationError:
        return None


def may_think(row: Conversation) -> bool:
    """Whether an answer may hold reasoning, which is not taught."""
    return any(MARKED.search(turn.content) for turn in row.conversations)


def import_record(record: Record) -> Row | Broken:
    """One record as a row, or why it is none."""
    native = parse_native(record.text) if record.text is not None else None
    if native is not None and not may_think(native):
        return Row(record.line, native, "conversations", text=record.text)
    try:
        name, conversation, changes = convert(record.value)
    except Unusable as error:
        return Broken(record.line, str(error))
    if record.recoded:
        changes.append(Change("这一行是 GB18030（GBK）编码，不是 UTF-8"))
    return Row(
        record.line, conversation, name, tuple(changes), record.text if conversation == native else None
    )


def import_file(path: Path) -> Imported:
    """All rows of a file in any known format, and the places that give none."""
    source = read_source(path)
    rows: list[Row] = []
    problems: list[Broken] = []
    for item in source.items:
        found = item if isinstance(item, Broken) else import_record(item)
        (rows if isinstance(found, Row) else problems).append(found)
    return Imported(replace(source, items=()), rows, problems)


def is_clean(path: Path) -> bool:
    """Whether every line is this project's own; keeps no row, so that a long file takes no memory."""
    if not path.is_file():
        return False
    items = (item for _, item in iterate_conversations(path))
    return all(isinstance(item, Conversation) and not may_think(item) for item in items)


def training_rows(path: Path, tell: Callable[[str], None] = print) -> Iterator[tuple[int, Conversation]]:
    """Lines and conversations of a training file, which may be in any format that converts without loss.

    A file in a foreign format is named in one line through `tell`; where a row cannot be used, or something
    would be left out, nothing is taught.
    """
    if is_clean(path):
        yield from iterate_conversations(path)
        return
    imported = import_file(path)
    if imported.problems:
        first = imported.problems[0]
        more = f"（共 {len(imported.problems)} 处）" if len(imported.problems) > 1 else ""
        raise WorkbookError(
            f"{path}:{first.line}: {first.what}{more}。{first.remedy}；"
            f"minimind doctor {path} 列出全部问题，加 --fix 新文件 把能用的另存。"
        )
    for change, lines in imported.changes.items():
        if change.lossy:
            raise WorkbookError(
                f"{path}:{lines[0]}: {change.what}（共 {len(lines)} 行）。"
                f"这样会丢东西，请先看过再转：minimind import {path}。"
            )
    if not imported.rows:
        raise WorkbookError(f"{path}: 没有任何对话。请先运行 minimind build-dataset。")
    what = "，".join([*imported.faults(), *(change.what for change in imported.changes)])
    if what:
        tell(f"{path}: {what}。已转成对话，{len(imported.rows)} 行，没有丢掉内容。")
    for row in imported.rows:
        yield row.line, row.conversation
