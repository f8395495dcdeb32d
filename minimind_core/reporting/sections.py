"""The team's own words: report/sections/*.md, as blocks that report.typ sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.files import read_text
from minimind_core.reporting.glyphs import missing_characters

SECTIONS = ("data", "samples", "training", "show", "work")  # file names; report.typ says where each stands
EXAMPLE = "<!-- 示例"  # a section that still begins so was not written by the team
STYLES = {"strong_open": "strong", "em_open": "emph", "code_inline": "code"}


def section_file(workbook: Workbook, name: str) -> Path:
    """Where a section is written."""
    return workbook.root / "report" / "sections" / f"{name}.md"


# What Markdown can say and the report does not set, by the parser's names.
UNSET = {
    "fence": "代码块", "code_block": "代码块（行首有四个空格）", "table_open": "表格", "image": "图片",
    "html_inline": "网页标签", "html_block": "网页标签",
}  # fmt: skip
ALLOWED = "这里只能用段落、列表、小标题、引用、粗体、斜体和行内代码"


def read_section(path: Path) -> list[dict[str, Any]]:
    """Paragraphs, list items and headings of a Markdown file: {kind: p|li|h, runs: [[text, style], …]}.

    No file, no blocks. Everything that the report cannot set is refused at once, each with its line.
    """
    if not path.is_file():
        return []
    text = read_text(path)
    tokens = MarkdownIt().enable("table").parse(text)
    if problems := [*unset(tokens), *unseen(text)]:
        raise WorkbookError("\n".join(f"{path}:{line}: {what}" for line, what in sorted(problems)))
    blocks: list[dict[str, Any]] = []
    kinds: list[str] = []
    for token in tokens:
        if token.type == "inline":
            kind = "h" if "heading_open" in kinds else "li" if "list_item_open" in kinds else "p"
            blocks.append({"kind": kind, "runs": runs(token.children or [])})
        elif token.nesting == 1:
            kinds.append(token.type)
        elif token.nesting == -1:
            kinds.pop()
    return blocks


def unset(tokens: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of the marks that the report does not set; comments are none."""
    for token in tokens:
        for part in (token, *(token.children or ())):
            if part.type in UNSET and not part.content.startswith("<!--"):
                line = token.map[0] + 1 if token.map else 1
                yield line, f"报告里放不了{UNSET[part.type]}。{ALLOWED}，请改写。"


def unseen(text: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of footnotes and of characters that the font has not."""
    for number, line in enumerate(text.split("\n"), 1):
        if re.search(r"\[\^[^\]]+\]", line):
            yield number, f"报告里放不了脚注。{ALLOWED}，请改写。"
        if missing := missing_characters(line):
            yield number, f"字体里没有 {' '.join(missing)}，印出来是空框。请换掉。"


def runs(children: Sequence[Token]) -> list[list[str]]:
    """Pieces of text with their style."""
    found, style = [], "plain"
    for child in children:
        if child.type in ("strong_open", "em_open"):
            style = STYLES[child.type]
        elif child.type in ("strong_close", "em_close"):
            style = "plain"
        elif child.content:
            found.append([child.content, STYLES.get(child.type, style)])
    return found


def unwritten(workbook: Workbook) -> list[str]:
    """Names of the sections that are still the shipped examples."""
    files = [section_file(workbook, name) for name in SECTIONS]
    return [path.name for path in files if path.is_file() and read_text(path).startswith(EXAMPLE)]
