"""Writing a foreign or unclean file as this project's JSONL, without changing what it means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from minimind_core.conversations.broken import Broken
from minimind_core.conversations.importing import Imported, Row, import_file
from minimind_core.conversations.schema import Conversation
from minimind_core.conversations.text_checks import CONTROL, LINE_ENDS, SPECIAL
from minimind_core.errors import WorkbookError
from minimind_core.files import write_text


def clean(text: str) -> str:
    """Text without invisible characters, outer blanks and the chat template's outer tokens.

    Nothing that can be read within the text is touched; cleaning twice changes nothing.
    """
    before = None
    while before != text:
        before = text
        text = CONTROL.sub("", LINE_ENDS.sub("\n", text)).strip()
        found = SPECIAL.match(text)
        text = text[found.end() :] if found else text
        ends = [match for match in SPECIAL.finditer(text) if match.end() == len(text)]
        text = text[: ends[0].start()] if ends else text
    return text


def cleaned(row: Row) -> Row | None:
    """The row with clean texts, or None where a text is then empty; a clean row stays as it is."""
    turns = tuple(
        turn.model_copy(update={"content": clean(turn.content)}) for turn in row.conversation.conversations
    )
    if turns == row.conversation.conversations:
        return row
    if not all(turn.content for turn in turns):
        return None
    return replace(row, conversation=Conversation(conversations=turns, meta=row.conversation.meta), text=None)


def line_of(row: Row) -> str:
    """The row as a line of JSONL: byte for byte the one it was, if it was good."""
    return row.text if row.text is not None else json.dumps(row.conversation.model_dump(), ensure_ascii=False)


def convert_file(path: Path, out: Path) -> Imported:
    """Write all usable rows of a file of any known format to `out`; `path` is never touched.

    What cannot be used is told by the returned `problems`. Rows that are only doubtful (written twice,
    answered in two ways, with marks of a web page) stay: what is meant, only people know. Converting a
    converted file changes nothing.
    """
    if out.resolve() == path.resolve():
        raise WorkbookError(f"{out}: 不能写回原文件。请换一个文件名。")
    imported = import_file(path)
    rows = [cleaned(row) for row in imported.rows]
    empty = [old.line for old, new in zip(imported.rows, rows, strict=True) if new is None]
    kept = [row for row in rows if row is not None]
    if not kept:
        reason = (
            f"（第 {imported.problems[0].line} 行：{imported.problems[0].what}）" if imported.problems else ""
        )
        raise WorkbookError(f"{path}: 没有一条能用的对话{reason}，没有写出 {out}。")
    write_text(out, "".join(line_of(row).rstrip("\r") + "\n" for row in kept))
    problems = [*imported.problems, *(Broken(line, "去掉看不见的字符之后是空的") for line in empty)]
    return Imported(imported.source, kept, sorted(problems, key=lambda broken: broken.line))
