"""What needs no model: look-up, and rules.

A fine-tuned model that does not beat them has not earned its training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer

from minimind_core.collection.facts import Fact, read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.mixing import book_of, dataset_file
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.conversations.wordings import answer_sentence
from minimind_core.evaluation.suites import Question
from minimind_core.inference.claims import claim_check
from minimind_core.inference.generation import Answer
from minimind_core.texts import normalize


def bigrams(text: str) -> Counter[str]:
    """Pairs of neighbouring characters with their counts."""
    return Counter(text[i : i + 2] for i in range(len(text) - 1))


class Lookup:
    """The answer of the most similar training question: TF-IDF over character n-grams, cosine."""

    def __init__(self, rows: Sequence[Conversation]) -> None:
        self.answers = [row.answer for row in rows]
        asked = ["\n".join(turn.content for turn in row.conversations[:-1]) for row in rows]
        self.weights = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
        self.table = self.weights.fit_transform(asked).T.tocsr()  # (n-grams, rows): few n-grams are looked up

    def answer(self, question: Question) -> Answer:
        """The stored answer to the most similar question (the first of the best).

        Of a dialogue all the user's turns count.
        """
        asked = self.weights.transform(["\n".join(question.turns)])
        text = self.answers[int((asked @ self.table).toarray().argmax())]
        return Answer(text, len(text), True)


class Rules:
    """No model at all.

    The longest known name in the dialogue, the attribute of the nearest wording, the value from the table.
    """

    def __init__(self, workbook: Workbook) -> None:
        facts = read_facts(workbook.facts)
        self.check = claim_check(workbook)
        self.book = book_of(workbook, facts)
        self.facts = {(normalize(fact.subject), fact.attribute): fact for fact in facts}
        names = self.check.names
        self.names = sorted(
            ((name, subject) for subject, own in names.items() for name in own), key=lambda p: -len(p[0])
        )
        self.forms = [
            (bigrams(normalize(form.replace("{s}", "").replace("{a}", words.names[0]))), attribute)
            for attribute, words in self.book.wordings.items()
            for way in ("ask", "keywords", "follow")
            for form in words.forms(way)
        ]

    def attribute(self, question: str) -> str:
        """Of the wording that shares most bigrams with the question (Dice's coefficient)."""
        own = bigrams(question)

        def likeness(form: Counter[str]) -> float:
            return 2 * sum((own & form).values()) / max(1, sum(own.values()) + sum(form.values()))

        return max(self.forms, key=lambda pair: likeness(pair[0]))[1]

    def find(self, turns: Sequence[str]) -> tuple[str, Fact | None]:
        """The subject named last (normalised, empty if none is) and its fact that the last turn asks for, if
        the table has it.
        """
        texts = [normalize(turn) for turn in reversed(turns)]
        for text in texts:
            name, subject = next(((n, s) for n, s in self.names if n in text), ("", ""))
            if subject:
                return subject, self.facts.get((subject, self.attribute(texts[0].replace(name, ""))))
        return "", None

    def answer(self, question: Question) -> Answer:
        """The table's value, or the refusal."""
        fact = self.find(question.turns)[1]
        said = answer_sentence(self.book[fact.attribute], fact) if fact else self.check.fallback
        return Answer(said, len(said), True)


def baseline(workbook: Workbook, name: str) -> Lookup | Rules:
    """`lookup` or `rules`."""
    return Rules(workbook) if name == "rules" else Lookup(read_conversations(dataset_file(workbook, "train")))


BASELINES = ("lookup", "rules")
