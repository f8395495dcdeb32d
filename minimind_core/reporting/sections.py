"""The team's own words: report/sections/*.md, as blocks that report.typ sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError

SECTIONS = ("data", "samples", "training", "show", "work")  # file names; report.typ says where each stands
EXAMPLE = "<!-- 示例"  # a section that still begins so was not written by the team
STYLES = {"strong_open": "strong", "em_open": "emph", "code_inline": "code"}


def section_file(workbook: Workbook, name: str) -> Path:
    """Where a section is written."""
    return workbook.root / "report" / "sections" / f"{name}.md"


def read_section(path: Path) -> list[dict[str, Any]]:
    """Paragraphs, list items and headings of a Markdown file: {kind: p|li|h, runs: [[text, style], …]}.

    No file, no blocks.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkbookError(f"{path}: 不是 UTF-8 编码。请另存为 UTF-8。") from error
    blocks: list[dict[str, Any]] = []
    kinds: list[str] = []
    for token in MarkdownIt().parse(text):
        if token.type == "inline":
            kind = "h" if "heading_open" in kinds else "li" if "list_item_open" in kinds else "p"
            blocks.append({"kind": kind, "runs": runs(token.children or [])})
        elif token.nesting == 1:
            kinds.append(token.type)
        elif token.nesting == -1:
            kinds.pop()
        elif token.type not in ("html_block", "hr"):
            line = token.map[0] + 1 if token.map else 1
            raise WorkbookError(
                f"{path}:{line}: 这里只能用段落、列表、小标题、粗体、斜体和行内代码。请改写。"
            )
    return blocks


def runs(children: list[Any]) -> list[list[str]]:
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
    return [
        path.name
        for path in files
        if path.is_file() and path.read_text(encoding="utf-8-sig").startswith(EXAMPLE)
    ]
