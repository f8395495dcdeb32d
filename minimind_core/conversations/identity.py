"""Who the model is: persona.toml filled in with workbook.toml's persona."""

from __future__ import annotations

import json

from minimind_core.config import Persona
from minimind_core.conversations.wordings import data_table, data_text

INTENTS = ("name", "maker", "ability", "limit", "greeting", "provoking", "english", "follow")


def put(form: str, persona: Persona) -> str:
    """Fill in name, team, topic and scope."""
    for field, value in vars(persona).items():
        form = form.replace("{" + field + "}", value)
    return form


def identity_questions(intent: str) -> list[str]:
    """The taught questions of an intent."""
    return data_table("persona")[intent]["questions"]


def identity_answer(intent: str, persona: Persona) -> str:
    """The answer to an intent's questions; it holds what the test looks for."""
    return put(data_table("persona")[intent]["answer"], persona)


def identity_expected(intent: str, persona: Persona) -> str:
    """The words that a right answer contains."""
    return put(data_table("persona")[intent]["expected"], persona)


def small_talk(persona: Persona) -> list[tuple[str, str]]:
    """Short remarks and the persona's replies."""
    return [
        (question, put(answer, persona)) for question, answer in data_table("persona")["small_talk"]["pairs"]
    ]


def everyday_dialogues() -> list[list[str]]:
    """Everyday dialogues: texts of user and assistant in turn."""
    return [json.loads(line) for line in data_text("everyday.jsonl").splitlines()]


def refusal_answers(persona: Persona) -> list[str]:
    """What the model says to requests on other topics."""
    return [put(answer, persona) for answer in data_table("persona")["refusal"]["answers"]]


def refusal_answer(persona: Persona) -> str:
    """The refusal that stands for a withdrawn answer."""
    return refusal_answers(persona)[0]


def unknown_answer(reason: str, subject: str) -> str:
    """What the model says of an unknown subject, or of something that it does not know about a known one."""
    return data_table("persona")["refusal"]["subject" if reason == "subject" else "attribute"].replace(
        "{s}", subject
    )
