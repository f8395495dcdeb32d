"""The one way in: every surface that shows answers asks an Assistant, and gives it the whole dialogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tokenizers import Tokenizer

from minimind_core.config import Workbook
from minimind_core.inference.claims import ClaimCheck, claim_check
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer, generate, stream
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import Message
from minimind_core.training.runs import load_run


class Assistant:
    """A model with its way of decoding and, unless switched off, the claim check.

    `messages` are dictionaries with role and content, oldest first, ending with the user's; what does not fit
    the context is left out from the oldest on.
    """

    def __init__(
        self,
        model: MiniMind,
        tokenizer: Tokenizer,
        decoding: Decoding | None = None,
        check: ClaimCheck | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.decoding, self.check = decoding or Decoding(), check

    @classmethod
    def load(
        cls,
        workbook: Workbook,
        run: str,
        decoding: Decoding | None = None,
        *,
        check: bool = True,
        device: str = "auto",
    ) -> Assistant:
        """The assistant of a run; the run `base` is the base model, whose answers are never checked."""
        model, tokenizer = load_run(workbook, run, device)
        return cls(model, tokenizer, decoding, claim_check(workbook) if check and run != "base" else None)

    def using(self, decoding: Decoding) -> Assistant:
        """The same model and check with another way of decoding."""
        return Assistant(self.model, self.tokenizer, decoding, self.check)

    def unchecked(self) -> Assistant:
        """The same model without the check."""
        return Assistant(self.model, self.tokenizer, self.decoding)

    def checked(self, messages: Sequence[Message], answer: Answer) -> Answer:
        """The answer after the claim check, if there is one."""
        return self.check.apply(messages, answer) if self.check else answer

    def answer(self, messages: Sequence[Message]) -> Answer:
        """The answer to one dialogue."""
        return self.answer_all([messages])[0]

    def answer_all(
        self, dialogues: Sequence[Sequence[Message]], report: Callable[[int], None] = lambda done: None
    ) -> list[Answer]:
        """The answers to many dialogues, batched; `report` gets the number just finished."""
        answers = generate(self.model, self.tokenizer, dialogues, self.decoding, report=report)
        return [self.checked(messages, answer) for messages, answer in zip(dialogues, answers, strict=True)]

    def stream(self, messages: Sequence[Message]) -> Iterator[Answer]:
        """The growing answer.

        Where the check withdraws it, a last item holds the fallback and the model's own words.
        """
        answer = None
        for answer in stream(self.model, self.tokenizer, messages, self.decoding):
            yield answer
        if answer is not None and (final := self.checked(messages, answer)) is not answer:
            yield final

    def converse(
        self, turns: Sequence[Sequence[str]], report: Callable[[int], None] = lambda done: None
    ) -> list[list[Answer]]:
        """Answer the user's turns of many dialogues, each after the model's own answers to the turns
        before.
        """
        dialogues: list[list[Message]] = [[] for _ in turns]
        answers: list[list[Answer]] = [[] for _ in turns]
        for place in range(max(map(len, turns), default=0)):
            going = [i for i, own in enumerate(turns) if place < len(own)]
            for i in going:
                dialogues[i].append({"role": "user", "content": turns[i][place]})
            for i, answer in zip(going, self.answer_all([dialogues[i] for i in going], report), strict=True):
                dialogues[i].append({"role": "assistant", "content": answer.text})
                answers[i].append(answer)
        return answers
