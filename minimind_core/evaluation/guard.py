"""Which answers are given as they are: a statement about something else than was asked, or an improbable one, is held back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from minimind_core.evaluation.metrics import normalize

MARK = re.compile(r"(\{[sav]\})")
NAME = r"《[^》]*》|[^《》]+?"  # a title whole, whatever stands in it


@cache
def pattern(form: str) -> re.Pattern[str]:
    """The form as a regular expression with the groups s, v and a; a mark that comes again has to stand for the same."""
    parts, seen = [], set()
    for part in MARK.split(form.rstrip("。")):
        mark = part[1] if MARK.fullmatch(part) else ""
        parts.append(re.escape(part) if not mark else f"(?P={mark})" if mark in seen else f"(?P<{mark}>{NAME})")
        seen.add(mark)
    return re.compile("".join(parts) + "。?")


def names(text: str, name: str) -> bool:
    """Whether a text names something: a title as the whole of a title, if the text quotes any, else anywhere."""
    titles = re.findall("《[^》]*》", text)
    if name.startswith("《") and titles:
        return normalize(name) in map(normalize, titles)
    return bool(normalize(name)) and normalize(name) in normalize(text)


@dataclass(frozen=True)
class Guard:
    """Replaces some of the model's statements by "I do not know"; whatever else it says (who it is, small talk) is left alone.

    A statement is an answer of a taught form. It stands if the dialogue names its subject or its value, and if the model
    itself finds it probable enough: selective answering (arXiv:1610.02136, arXiv:1705.08500). A person whose name begins
    with a known person's whole name is not told apart.
    """

    fallback: str
    forms: tuple[str, ...]  # of answers, with {s}, {v} and perhaps {a}
    floor: float | None = None  # least probability of a whole answer; None: any will do

    def stated(self, answer: str) -> tuple[str, str] | None:
        """Subject and value of a statement; None for anything else."""
        for form in sorted(self.forms, key=len, reverse=True):  # the longest says most about what is a name
            found = pattern(form).fullmatch(answer)
            if found:
                return found["s"], found["v"]
        return None

    def about(self, dialogue: str, answer: str) -> bool | None:
        """Whether a statement names something that the dialogue asks about; None for anything else."""
        stated = self.stated(answer)
        return None if stated is None else any(names(dialogue, name) for name in stated)

    def passes(self, dialogue: str, answer: str, chance: float) -> bool:
        """Whether an answer of this probability is given as it is."""
        about = self.about(dialogue, answer)
        return about is None or (about and (self.floor is None or chance >= self.floor))
