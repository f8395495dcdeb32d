"""How facts are asked for and answered: general forms by the kind of a value, and a topic's own wordings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind_core.collection.facts import Fact
from minimind_core.conversations.material import data_table
from minimind_core.errors import WorkbookError
from minimind_core.files import read_table

# Ways of asking, and what each form of a way must mention.
WAYS: dict[str, tuple[str, ...]] = {
    "ask": ("{s}",), "keywords": ("{s}",), "begin": ("{s}",),
    "confirm": ("{s}", "{v}"), "doubt": ("{s}", "{w}"), "either": ("{s}", "{v}", "{w}"),
    "follow": (), "switch": ("{t}",), "reverse": ("{v}",),
}  # fmt: skip
KINDS = ("person", "place", "year", "date", "number", "thing")
SETTINGS = {"answer": str, "reverse_answer": str, "kind": str, "names": list, "pronouns": list}
# lists that belong to no attribute, and what each of their forms must mention
SCENES = {"frames": ("{q}",), "familiar": ("{s}",), "owned": ("{o}", "{s}")}
# of the questions about an attribute with wordings of its own use these, the others the general forms
OWN_SHARE = 0.75
# Attributes whose value is another name of the subject.
ALIASES = ("英文名", "本名", "原名", "艺名", "别名", "又名", "简称", "字", "号")


@dataclass(frozen=True)
class Wordings:
    """How one attribute is asked for and answered.

    Forms contain {s} subject, {a} what the attribute is called, {v} its value, {w} another subject's value
    and {t} another subject. `own` and `general` map a way of asking (WAYS) to its forms.
    """

    attribute: str
    answer: str
    reverse_answer: str
    kind: str
    names: tuple[str, ...]
    pronouns: tuple[str, ...] = ()  # what may stand for the subject; none: the general words
    own: Mapping[str, Sequence[str]] = field(default_factory=dict)
    general: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def forms(self, way: str) -> list[str]:
        """All forms of a way, the attribute's own first."""
        return [*self.own.get(way, ()), *self.general.get(way, ())]


@dataclass(frozen=True)
class Book:
    """The wordings of every attribute of a table of facts, and scenes that fit its topic."""

    wordings: Mapping[str, Wordings]
    frames: tuple[str, ...] = ()  # around a question
    familiar: tuple[str, ...] = ()  # a person's name as fans say it
    owned: tuple[str, ...] = ()  # a title with somebody's name

    def __getitem__(self, attribute: str) -> Wordings:
        """An attribute's wordings; one that the table lacks is asked for in the general forms."""
        return self.wordings.get(attribute) or wordings_of(attribute, (), {})

    def without_own(self) -> list[str]:
        """Attributes for which nobody has written wordings."""
        return [name for name, words in self.wordings.items() if not words.own]


def value_kind(attribute: str, values: Sequence[str]) -> str:
    """What an attribute's values are.

    By the longest known ending of its name, or else by the look of most values.
    """
    kinds = data_table("forms")["kinds"]
    endings = {
        end: kind for kind, rule in kinds.items() for end in rule["endings"] if attribute.endswith(end)
    }
    if endings:
        return endings[max(endings, key=len)]
    for kind, rule in kinds.items():
        pattern = rule.get("values")
        if pattern and 2 * sum(bool(re.fullmatch(pattern, value)) for value in values) > len(values):
            return kind
    return "thing"


def wordings_of(attribute: str, values: Sequence[str], table: Mapping[str, Any]) -> Wordings:
    """Wordings of one attribute: `table` is what a topic's file says of it, possibly nothing."""
    general = data_table("forms")
    kind = table.get("kind") or value_kind(attribute, values)
    link = "" if "的" in attribute else "的"  # 周杰伦擅长的乐器, but 周杰伦的妻子
    answer = table.get("answer") or "{s}" + f"{link}{attribute}是" + "{v}。"
    return Wordings(
        attribute=attribute,
        answer=answer,
        reverse_answer=table.get("reverse_answer") or "{v}是{s}" + f"{link}{attribute}。",
        kind=kind,
        names=tuple(table.get("names") or (attribute,)),
        pronouns=tuple(table.get("pronouns", ())),
        own={way: table[way] for way in WAYS if table.get(way)},
        general={way: [*general["any"].get(way, ()), *general[kind].get(way, ())] for way in WAYS},
    )


def read_wordings(path: Path) -> dict[str, Any]:
    """A wordings file, checked: known keys, lists of texts, and in every form what it has to mention."""
    tables, place = read_table(path), str(path)
    for attribute, table in tables.items():
        if attribute in SCENES:
            check_forms(table, SCENES[attribute], f"{place}: {attribute}")
            continue
        known = [*SETTINGS, *WAYS]
        if not isinstance(table, dict) or table.keys() - set(known):
            raise WorkbookError(f"{place}: [{attribute}] 里只能写 {'、'.join(known)}。")
        for key, value in table.items():
            here = f"{place}: [{attribute}] {key}"
            if key in WAYS:
                check_forms(value, WAYS[key], here)
            elif not isinstance(value, SETTINGS[key]) or not value:
                raise WorkbookError(f"{here} 应是{'文字' if SETTINGS[key] is str else '文字的列表'}。")
            elif key.endswith("answer"):
                check_forms([value], ("{s}", "{v}"), here)
        if table.get("kind", "thing") not in KINDS:
            raise WorkbookError(f"{place}: [{attribute}] kind 应是 {'、'.join(KINDS)} 之一。")
    return tables


def check_forms(forms: Any, marks: Sequence[str], place: str) -> None:
    """Forms are a list of texts, each with all the marks."""
    if not isinstance(forms, list) or not all(isinstance(form, str) for form in forms):
        raise WorkbookError(f"{place} 应是文字的列表。")
    for mark in marks:
        bare = [form for form in forms if mark not in form]
        if bare:
            raise WorkbookError(f"{place} 的“{bare[0]}”里没有 {mark}。请补上。")


def load_book(path: Path, facts: Sequence[Fact]) -> Book:
    """The wordings of the facts' attributes.

    The general forms, and those of a topic's own file where there is one.

    The file's scenes are used only if it knows at least half of the attributes, so that those of another
    topic stay out.
    """
    tables = read_wordings(path)
    values: dict[str, list[str]] = {}
    for fact in facts:
        values.setdefault(fact.attribute, []).append(fact.value)
    wordings = {name: wordings_of(name, found, tables.get(name, {})) for name, found in values.items()}
    known = sum(name in tables for name in values)
    scenes = {name: tuple(tables.get(name, ())) for name in SCENES if 2 * known >= len(values)}
    return Book(wordings, **scenes)


def wordings_template(attribute: str, kind: str) -> str:
    """A table for a topic's wordings.toml, to be filled in for an attribute that has no wordings yet."""
    general = data_table("forms")[kind]["ask"][0].replace("{a}", attribute)
    return (
        f'["{attribute}"]\nanswer = "{wordings_of(attribute, (), {"kind": kind}).answer}"\n'
        f'kind = "{kind}"\nnames = ["{attribute}"]\nask = ["{general}"]  # 再写几种不同的问法\n'
    )


def fill(form: str, **marks: str) -> str:
    """Put texts into a form: `fill("{s}的{a}", s=…, a=…)`."""
    for mark, text in marks.items():
        form = form.replace("{" + mark + "}", text)
    return form


def answer_sentence(words: Wordings, fact: Fact, reverse: bool = False) -> str:
    """The sentence with which the model states a fact."""
    return fill(
        words.reverse_answer if reverse else words.answer, s=fact.subject, a=fact.attribute, v=fact.value
    )
