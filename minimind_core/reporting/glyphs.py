"""What the report's font can show: a missing character would be printed as an empty box without a warning."""

from __future__ import annotations

import re
from functools import cache

import pylopdf_fonts_zh_cn
from fontTools.ttLib import TTFont

FAR = 0x2E80  # from here on only the Chinese font has characters; Typst's own fonts have Latin, Greek, signs
LONG = re.compile(r"[^\s\u2e80-\uffff]{30,}")  # a word or an address that may be wider than a line
PIECE = 24  # characters after which such a word may be broken


@cache
def shown_characters() -> frozenset[int]:
    """Code points of the Chinese font."""
    with TTFont(pylopdf_fonts_zh_cn.sans_path(), lazy=True) as font:
        return frozenset(font.getBestCmap())


def missing_characters(text: str) -> list[str]:
    """Characters of a text that the report cannot show, each once."""
    return [c for c in dict.fromkeys(text) if ord(c) >= FAR and ord(c) not in shown_characters()]


def breakable(text: str) -> str:
    """The text with places inside very long words where a line may end."""

    def cut(word: re.Match[str]) -> str:
        pieces = [word[0][i : i + PIECE] for i in range(0, len(word[0]), PIECE)]
        return "\u200b".join(pieces)

    return LONG.sub(cut, text)
