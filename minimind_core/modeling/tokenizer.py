"""Byte-level BPE tokenizer and the one renderer of the chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from minimind_core.errors import WorkbookError

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
PAD_ID, START_ID, END_ID = 0, 1, 2
EMPTY_THOUGHTS = "<think>\n\n</think>\n\n"
DEFAULT_SYSTEM = "You are a helpful assistant"
Message = dict[str, str]

# transformers' form of `prompt_segments`; a test holds the two together.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = '" + DEFAULT_SYSTEM + "' %}{% endif %}"
    "{{ '<|im_start|>system\n' + system + '<|im_end|>\n' }}"
    "{% for m in turns %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


THINKING_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n'"
    " + ('<think>\n\n</think>\n\n' if m['role'] == 'assistant' else '')"
    " + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train byte-level BPE; every byte has a token, so nothing is ever unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json and check that the three special tokens sit at ids 0, 1 and 2."""
    if not path.is_file():
        raise WorkbookError(
            f"{path}: 找不到分词器文件。请检查 workbook.toml 里的 base 路径，或重新克隆仓库。"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no other class
        raise WorkbookError(f"{path}: 分词器文件已损坏（{error}）。请重新克隆仓库。") from error
    found = [tokenizer.token_to_id(token) for token in (PAD, START, END)]
    if found != [PAD_ID, START_ID, END_ID]:
        raise WorkbookError(
            f"{path}: 特殊词元的编号应为 0、1、2，实际为 {found}。这个分词器与 MiniMind 权重不配套。"
        )
    return tokenizer


def thinks(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is minimind-3's, whose answers begin with a block of thoughts and which has no
    default system message.
    """
    return tokenizer.token_to_id("<think>") is not None


def chat_template(tokenizer: Tokenizer) -> str:
    """transformers' form of the template that fits a tokenizer."""
    return THINKING_TEMPLATE if thinks(tokenizer) else CHAT_TEMPLATE


def chat_segments(messages: Sequence[Message], thinking: bool = False) -> list[tuple[str, bool]]:
    """The chat template as (text, is_answer) pieces; the joined text is the whole conversation.

    A leading system message replaces the default. An answer's piece includes its end token and newline,
    because the model has to learn to write them. `thinking`: minimind-3's template, with an empty block of
    thoughts before each answer.
    """
    system, turns = None if thinking else DEFAULT_SYSTEM, messages
    if messages and messages[0]["role"] == "system":
        system, turns = messages[0]["content"], messages[1:]
    pieces = [(f"{START}system\n{system}{END}\n", False)] if system is not None else []
    for message in turns:
        answer = message["role"] == "assistant"
        pieces.append((answer_header(thinking) if answer else f"{START}{message['role']}\n", False))
        pieces.append((f"{message['content']}{END}\n", answer))
    return pieces


def answer_header(thinking: bool) -> str:
    """What stands before an answer."""
    return f"{START}assistant\n" + (EMPTY_THOUGHTS if thinking else "")


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation and, for each, whether it belongs to an answer."""
    pieces = chat_segments(messages, thinks(tokenizer))
    encoded = tokenizer.encode_batch_fast([text for text, _ in pieces], add_special_tokens=False)
    ids: list[int] = []
    answer: list[bool] = []
    for (_, is_answer), piece in zip(pieces, encoded, strict=True):
        ids += piece.ids
        answer += [is_answer] * len(piece.ids)
    return ids, answer


def count_tokens(tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]]) -> list[int]:
    """Length of each rendered conversation, in tokens."""
    texts = [
        "".join(text for text, _ in chat_segments(messages, thinks(tokenizer))) for messages in conversations
    ]
    chunks = (texts[i : i + 4096] for i in range(0, len(texts), 4096))  # encodings are large
    return [
        len(encoding.ids)
        for chunk in chunks
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
    ]


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids up to and including the assistant's header: what generation starts from."""
    return (
        encode_chat(tokenizer, messages)[0]
        + tokenizer.encode(answer_header(thinks(tokenizer)), add_special_tokens=False).ids
    )


def shared_prefix(sequences: Sequence[list[int]]) -> int:
    """Number of leading tokens that all sequences share (the system message), leaving at least one of
    each.
    """
    shortest = min(sequences, key=len)
    for index in range(len(shortest) - 1):
        if any(sequence[index] != shortest[index] for sequence in sequences):
            return index
    return len(shortest) - 1
