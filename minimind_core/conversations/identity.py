"""Who the model is: persona.toml filled in with workbook.toml's persona."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minimind_core.config import Workbook
from minimind_core.conversations.material import Material

INTENTS = ("name", "maker", "ability", "limit", "greeting", "provoking", "english", "follow")


@dataclass(frozen=True)
class Refusals:
    """What the model says when it does not know."""

    topics: tuple[str, ...]  # to requests on other topics; the first stands for a withdrawn answer
    subject: str  # of an unknown name
    attribute: str  # of something unknown about a known subject, {s}

    def reply(self, reason: str, subject: str) -> str:
        """The reply for a reason other than another topic."""
        return self.subject if reason == "subject" else self.attribute.replace("{s}", subject)


class Identity:
    """The persona's questions and answers."""

    def __init__(self, workbook: Workbook) -> None:
        self.persona, self.table = workbook.persona, Material(workbook.texts).table("persona")

    def fill_in(self, form: str) -> str:
        """Fill in name, team, topic and scope."""
        for field, value in vars(self.persona).items():
            form = form.replace("{" + field + "}", value)
        return form

    def questions(self, intent: str) -> list[str]:
        """The taught questions of an intent."""
        return self.table[intent]["questions"]

    def answer(self, intent: str) -> str:
        """The answer to an intent's questions; it holds what the test looks for."""
        return self.fill_in(self.table[intent]["answer"])

    def expected(self, intent: str) -> str:
        """The words that a right answer contains; an unknown intent is about the name."""
        return self.fill_in(self.table[intent if intent in INTENTS else "name"]["expected"])

    def small_talk(self) -> list[tuple[str, str]]:
        """Short remarks and the persona's replies."""
        return [(remark, self.fill_in(reply)) for remark, reply in self.table["small_talk"]["pairs"]]

    def refusals(self) -> Refusals:
        """What it says when it does not know."""
        table: dict[str, Any] = self.table["refusal"]
        return Refusals(tuple(map(self.fill_in, table["answers"])), table["subject"], table["attribute"])
