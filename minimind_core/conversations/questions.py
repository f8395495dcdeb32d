"""Wordings: how a fact is asked, and how it is answered; they stand in wordings.toml, a team's own in dataset/wordings.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError

PERSON, OTHER = "人物", "其他"  # wordings of attributes that have none of their own
PERSON_ATTRIBUTES = ("母亲", "父亲", "妻子", "丈夫", "常合作的词人", "作者", "导演", "校长", "班主任")


@dataclass(frozen=True)
class Wordings:
    """Forms of one attribute; {s} is the subject, {v} the value, {a} the attribute. See wordings.toml for each field."""

    answers: tuple[str, ...]
    train: tuple[str, ...]
    valid: tuple[str, ...]
    held_out: tuple[str, ...]
    family: tuple[str, ...]
    reverse: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    reverse_answers: tuple[str, ...] = ()
    begin: tuple[str, ...] = ()

    def answer(self, number: int, reverse: bool = False) -> str:
        """The answer form that belongs to the n-th taught wording; one without answers of its own to reverse questions answers them alike."""
        forms = reverse and self.reverse_answers or self.answers
        return forms[number % len(forms)]


Book = Mapping[str, Wordings]


def parse_wordings(text: str, place: str) -> Book:
    """Tables of a wordings file, checked: known fields, lists of texts, a subject or value in every form that stands alone."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkbookError(f"{place}: 格式错误（{error}）。文字要用英文双引号括起来。") from error
    known, both = {f.name for f in fields(Wordings)}, ("{s}", "{v}")
    book = {}
    for attribute, table in tables.items():
        if not isinstance(table, dict) or table.keys() - known:
            raise WorkbookError(f"{place}: [{attribute}] 里只能写 {'、'.join(sorted(known))}。")
        missing = {"answers", "train", "valid", "held_out", "family"} - {k for k, v in table.items() if v}
        if missing or not all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in table.values()):
            raise WorkbookError(f"{place}: [{attribute}] 的每一项都应是文字的列表，缺少 {'、'.join(sorted(missing)) or '无'}。")
        for name in table.keys() - {"follow"}:
            for mark in {"reverse": ("{v}",), "answers": both, "reverse_answers": both}.get(name, ("{s}",)):
                bare = [form for form in table[name] if mark not in form]
                if bare:
                    raise WorkbookError(f"{place}: [{attribute}] {name} 的“{bare[0]}”里没有 {mark}。请补上。")
        book[attribute] = Wordings(**{name: tuple(forms) for name, forms in table.items()})
    return book


@cache
def own_wordings() -> Book:
    """The package's wordings."""
    return parse_wordings((files(__package__) / "wordings.toml").read_text(encoding="utf-8"), "wordings.toml")


def load_wordings(extra: Path | None = None) -> Book:
    """The package's wordings, and those of `extra` (if the file exists) in their place; `extra` is read anew, as a team may just have changed it."""
    if extra is None or not extra.is_file():
        return own_wordings()
    return {**own_wordings(), **parse_wordings(extra.read_text(encoding="utf-8-sig"), str(extra))}


def trimmed(book: Book, wordings: int, answers: int) -> Book:
    """The book with at most so many taught wordings and answer forms of each attribute."""
    return {name: replace(words, train=words.train[:wordings], answers=words.answers[:answers]) for name, words in book.items()}


def taught_wordings(workbook: Workbook) -> Book:
    """The workbook's wordings, as many of each attribute as it teaches."""
    return trimmed(load_wordings(workbook.wordings), workbook.mix.wordings, workbook.mix.answers)


def wordings_for(book: Book, attribute: str) -> Wordings:
    """The attribute's own wordings, or those for persons or for anything."""
    return book.get(attribute) or book[PERSON if attribute in PERSON_ATTRIBUTES else OTHER]


@cache
def load_carriers(kind: str) -> tuple[str, ...]:
    """A list of carriers.toml: carriers, frames, completions or follow."""
    return tuple(tomllib.loads((files(__package__) / "carriers.toml").read_text(encoding="utf-8"))[kind])


def carried(form: str, number: int) -> str:
    """The form inside the n-th carrier."""
    carriers = load_carriers("carriers")
    return carriers[number % len(carriers)].replace("{q}", form)


def fill(form: str, subject: str, attribute: str, value: str = "") -> str:
    """Put a fact into a question or answer form."""
    return form.replace("{s}", subject).replace("{a}", attribute).replace("{v}", value)
