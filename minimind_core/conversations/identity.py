"""Who the model is and what it does not know: persona.toml and unknown.toml filled in with workbook.toml's persona."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from minimind_core.config import Persona

INTENTS = ("name", "maker", "ability", "limit", "greeting", "provoking", "english", "follow")


@cache
def tables(name: str) -> dict[str, Any]:
    """The package's persona.toml, unknown.toml or indirect.toml."""
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))


def put(form: str, persona: Persona) -> str:
    """Fill in name, team, topic and scope."""
    for field, value in vars(persona).items():
        form = form.replace("{" + field + "}", value)
    return form


def identity_questions(intent: str, held_out: bool, indirect: bool = True) -> list[str]:
    """Wordings of an intent, to be taught, the roundabout ones among them if so wanted, or kept for the test."""
    questions = tables("persona")[intent]["held_out" if held_out else "train"]
    return questions + tables("indirect").get(intent, []) if indirect and not held_out else questions


def identity_answer(intent: str, persona: Persona, number: int = 0) -> str:
    """The answer to the intent's n-th wording; it holds what the test looks for."""
    answers = tables("persona")[intent]["answers"]
    return put(answers[number % len(answers)], persona)


def identity_expected(intent: str, persona: Persona) -> str:
    """The words that a right answer contains."""
    return put(tables("persona")[intent]["expected"], persona)


def small_talk(persona: Persona) -> list[tuple[str, str]]:
    """Everyday remarks and replies."""
    return [(question, put(answer, persona)) for question, answer in tables("persona")["small_talk"]["pairs"]]


def everyday_prompts() -> list[str]:
    """What people say that has nothing to do with the topic."""
    return (files(__package__) / "everyday.txt").read_text(encoding="utf-8").splitlines()


def refusal_answer(persona: Persona, number: int = 0) -> str:
    """What the model says instead of inventing."""
    answers = tables("persona")["refusal"]["answers"]
    return put(answers[number % len(answers)], persona)


def quoted(titles: Sequence[str]) -> list[str]:
    """Titles in book-title marks."""
    return [f"《{title}》" for title in titles]


def invented_name(rng: random.Random) -> str:
    """Somebody who is in no table of facts."""
    return rng.choice(tables("unknown")["surnames"]) + rng.choice(tables("unknown")["given"])


def invented_title(rng: random.Random) -> str:
    """A song or album put together from unknown.toml's words and forms."""
    names = tables("unknown")
    form = rng.choice(names["title_forms"]).replace("{v}", rng.choice(names["title_verbs"]))
    return "《" + form.replace("{a}", rng.choice(names["title_words"])).replace("{b}", rng.choice(names["title_words"])) + "》"


def invented_attribute(rng: random.Random, kind: str) -> str:
    """Something that no table of facts holds about a person (`attribute`) or a work (`work_attribute`)."""
    names, work = tables("unknown"), "work_" if kind.startswith("work") else ""
    parts = {"{a}": "owners", "{b}": "qualities", "{c}": "actions" if work else "things"}
    form = rng.choice(names[f"{kind}_forms"])
    for mark, part in parts.items():
        form = form.replace(mark, rng.choice(names[work + part]))
    return form


def held_out_part(items: Sequence[str], share: int = 5) -> tuple[list[str], list[str]]:
    """Every `share`-th item is kept for the test."""
    return [x for i, x in enumerate(items) if i % share != share - 1], list(items[share - 1 :: share])
