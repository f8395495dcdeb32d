"""Comparing texts as people mean them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from opencc import OpenCC


@cache
def simplified() -> dict[int, str]:
    """Each traditional character's simplified one, by code point."""
    letters = [chr(code) for code in range(0x4E00, 0xA000)]
    found = OpenCC("t2s").convert("\n".join(letters)).split("\n")
    return {ord(old): new for old, new in zip(letters, found, strict=True) if old != new}


def normalize(text: str) -> str:
    """Fold full width, case, traditional characters, spaces, title marks, punctuation and zero-padded dates.

    1979年01月18日 and 1979-01-18 become the same.
    """
    text = unicodedata.normalize("NFKC", text).lower().translate(simplified())
    text = re.sub(r"(\d{4})\s*[年./-]\s*0?(\d{1,2})\s*[月./-]\s*0?(\d{1,2})\s*日?", r"\1年\2月\3日", text)
    text = re.sub(r"(?<!\d)[.-]|[.-](?!\d)", "", text)  # between digits a point or hyphen is part of a number
    return re.sub(r"[\s《》“”\"'‘’·,，。、！!？?：:;；()（）]", "", text)
