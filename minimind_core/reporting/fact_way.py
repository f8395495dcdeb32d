"""One fact followed from its row in the training file to the trained model's answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from minimind_core.config import Workbook
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import generate
from minimind_core.modeling.lora import layer_of, update_sizes
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import END_ID, START_ID, encode_chat, shared_prefix
from minimind_core.training.run_files import adapter_file
from minimind_core.training.runs import load_run

NAMES = {START_ID: "始", END_ID: "终"}  # of the two tokens that stand around a message


@dataclass(frozen=True)
class FactWay:
    """What happens to one training row."""

    question: str
    answer: str
    tokens: list[tuple[str, bool]]  # each token's text and whether it has a loss
    before: list[float]  # losses of the answer's tokens under the base, nats
    after: list[float]  # the same under the trained model
    sizes: dict[tuple[int, str], float]  # layer and module: norm of the update
    said_before: str
    said_after: str


def first_row(workbook: Workbook) -> Conversation:
    """The first plain question of the training part."""
    rows = read_conversations(dataset_file(workbook, "qa_train"))
    return next(row for row in rows if row.meta.get("way") == "ask" and len(row.conversations) == 2)


def token_losses(model: MiniMind, ids: list[int], learnt: list[bool]) -> list[float]:
    """-log p of each learnt token after those before it, nats."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0].float()
    losses = F.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    return [float(loss) for loss, learn in zip(losses, learnt[1:], strict=True) if learn]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as it is drawn; a part of a character is a dot."""
    text = NAMES.get(token) or tokenizer.decode([token], skip_special_tokens=False)
    return text.replace("\n", "↵").replace("\ufffd", "·")


def follow_fact(workbook: Workbook, run: str) -> FactWay:
    """Follow the first taught question through the base and a trained run."""
    row = first_row(workbook)
    messages = row.messages
    (base, tokenizer), (trained, _) = (load_run(workbook, name, "cpu") for name in ("base", run))
    ids, learnt = encode_chat(tokenizer, messages)
    other = encode_chat(tokenizer, [{"role": "user", "content": "？"}])[0]
    start = shared_prefix([ids, other])

    def said(model: MiniMind) -> str:
        return generate(model, tokenizer, [messages[:1]], Decoding())[0].text

    sizes = update_sizes(adapter_file(workbook, run))
    return FactWay(
        row.question, row.answer,
        [(token_text(tokenizer, token), learn) for token, learn in zip(ids, learnt, strict=True)][start:],
        token_losses(base, ids, learnt), token_losses(trained, ids, learnt),
        {(layer_of(name), name.rsplit(".", 1)[1]): size for name, size in sizes.items()},
        said(base), said(trained),
    )  # fmt: skip
