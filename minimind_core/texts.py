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


DIGITS = "〇一二三四五六七八九"


def in_characters(number: str) -> str:
    """A number below 100 as it is read: 23 is 二十三."""
    tens, ones = divmod(int(number), 10)
    return ("" if tens < 2 else DIGITS[tens]) + ("十" if tens else "") + (DIGITS[ones] if ones else "")


def spellings(value: str) -> list[str]:
    """The ways in which people type a value, itself first.

    2004年, 2004, 04年; 1979年1月18日, 1979.1.18; 甲某和乙某, 乙某跟甲某; others stay as they are.
    """
    if year := re.fullmatch(r"(\d\d)(\d\d)年", value):
        return [
            value,
            year[1] + year[2],
            f"{year[2]}年",
            "".join(DIGITS[int(d)] for d in year[1] + year[2]) + "年",
        ]
    if date := re.fullmatch(r"(\d\d(\d\d))年(\d{1,2})月(\d{1,2})日", value):
        year, short, month, day = date.groups()
        read = f"{''.join(DIGITS[int(d)] for d in year)}年{in_characters(month)}月{in_characters(day)}"
        joined = [mark.join((year, month, day)) for mark in ".-/"]
        joined += [f"{year}-{month:0>2}-{day:0>2}"] if len(month + day) < 4 else []
        days = [f"{year}年{month}月{day}号", f"{short}年{month}月{day}日", f"{short}年{month}月{day}号"]
        return [value, *days, *joined, f"{read}日", f"{read}号"]
    if two := re.fullmatch(r"([^《》]{2,3})和([^《》]{2,3})", value):
        first, second = two.groups()
        return [f"{a}{mark}{b}" for a, b in ((first, second), (second, first)) for mark in "和跟与、"]
    return [value]
