"""What the report's font can show: a missing character would be printed as an empty box without a warning."""

from __future__ import annotations

from functools import cache

import pylopdf_fonts_zh_cn
from fontTools.ttLib import TTFont

FAR = 0x2E80  # from here on only the Chinese font has characters; Typst's own fonts have Latin, Greek, signs


@cache
def shown_characters() -> frozenset[int]:
    """Code points of the Chinese font."""
    with TTFont(pylopdf_fonts_zh_cn.sans_path(), lazy=True) as font:
        return frozenset(font.getBestCmap())


def missing_characters(text: str) -> list[str]:
    """Characters of a text that the report cannot show, each once."""
    return [c for c in dict.fromkeys(text) if ord(c) >= FAR and ord(c) not in shown_characters()]
