"""The embedded base model's data: filtered corpus, copying exercises, measure."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import PAD, chat_segments
from minimind_core.training.batches import Batch
from minimind_core.training.trainer import mean_loss

# How often a document of a shard is drawn, relative to the others of its group (0.3 for shards not named
# here).
PROSE = {
    "cmrc2018_wiki": 3, "tatoeba_zh": 2, "common_voice_zh": 2, "gaokao": 1, "cmrc2019_stories": 3,
    "howtocook": 2,
    "xinhua_idioms": 1, "csl_abstracts": 2, "luxun_public_domain": 0.5, "kdconv_knowledge": 3,
}  # fmt: skip
DIALOGUE = {
    "oasst1_zh": 4, "llamafactory_zh": 4, "crosswoz": 3, "kdconv_film_dev": 4, "kdconv_film_test": 4,
    "kdconv_travel_dev": 4, "kdconv_travel_test": 4, "xpersona_zh": 4, "chatterbot_zh": 6,
    "kdconv_intro_qa": 2,
    "wiki_intro_qa": 4, "idiom_qa": 1, "howtocook_qa": 2, "medicalgpt_sharegpt_zh": 2, "emollm": 1,
}  # fmt: skip

# The base must claim no identity, and must not know what the workbook teaches.
IDENTITY = re.compile(
    r"ChatGPT|OpenAI|GPT-?[2345]|Claude|Anthropic|DeepSeek|Kimi|Gemini|Bard|LLaMA|Vicuna|Qwen|通义|文心|千问|智谱|ChatGLM"
    "|Open ?Assistant|MiniMind|小爱同学|小冰|我是(一个|一名|一款|"
    r"个)?.{0,12}(模型|人工智能|AI|助手|助理|机器人|程序)"
    r"|作为(一个|一名|一款)?.{0,8}(AI|人工智能|语言模型|机器人)|我的名字(是|叫)|由.{0,12}(开发|训练|研发|创造)的(AI|人工智能|语言|大|聊天|助手)"
    # a long introduction, as 您好，我是 X，一个由 Y 发明的人工智能助手
    r"|我(是|叫)\s*[^。！？\n]{1,40}(发明|开发|研发|训练|创造|打造|设计)的?[^。！？\n]{0,12}(人工智能|AI|模型|助手|助理|机器人)",
    re.IGNORECASE,
)


def text_key(text: str) -> int:
    """Stable 64-bit hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Document:
    """One text of the corpus; `text` of a dialogue is the rendered conversation."""

    text: str
    group: str  # prose, docs, law, counselling, dialogue and so on: what shares are stated for
    shard: str
    licence: str
    turns: tuple[dict[str, str], ...] = ()  # the dialogue's messages

    @property
    def key(self) -> int:
        """Stable 64-bit hash of the text."""
        return text_key(self.text)

    @property
    def held_out(self) -> bool:
        """One document in a hundred, decided by its hash, is never trained on."""
        return self.key % 100 == 0

    @property
    def weight(self) -> float:
        """Relative chance of being drawn within its group."""
        return (PROSE | DIALOGUE).get(self.shard, 0.3)


def names_pattern(path: Path) -> re.Pattern[str]:
    """Matches any of a file's names, one a line."""
    names = filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines()))
    return re.compile("|".join(map(re.escape, names)))


def allowed(text: str, held_back: re.Pattern[str] | None = None) -> bool:
    """False for texts in which an assistant names itself, and for those with a name that the base must not
    know, so that what is taught later is all that a model can know.
    """
    return not IDENTITY.search(text) and not (held_back and held_back.search(text))


FILES = ("pretrain", "pretrain2", "chat", "chat2", "counselling", "everyday")
GROUPS = {  # of shards that are no documentation
    **dict.fromkeys(PROSE, "prose"), "prc_laws": "law", "classical_modern": "classical",
    "pd_shakespeare_zhu": "drama",
    **dict.fromkeys(
        ("children_tales", "drcd_wiki", "ntrex_news", "pd_laoshe", "pd_linhuiyin", "pd_qibaishi",
         "pd_xiamianzun_cuore", "pd_xiaohong", "pd_xudishan", "pd_yudafu", "pd_zhouzuoren", "pd_zhuziqing",
         "tico19_health", "wiki_zh", "xquad_wiki"), "prose2",
    ),
}  # fmt: skip


def group_of(name: str, row: dict) -> str:
    """The group of a row of a corpus file."""
    if "conversations" in row:
        return {"counselling": "counselling", "everyday": "everyday"}.get(name, "dialogue")
    return "story" if name == "everyday" else GROUPS.get(row["shard"], "docs")


def read_corpus(folder: Path, held_back: re.Pattern[str] | None = None) -> Iterator[Document]:
    """All permitted documents of the corpus files that are there; see `allowed`."""
    for name in FILES:
        path = folder / f"{name}.jsonl.xz"
        if not path.is_file():
            continue
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                turns = row.get("conversations")
                text = row["text"] if turns is None else "".join(piece for piece, _ in chat_segments(turns))
                if allowed(text, held_back):
                    yield Document(
                        text, group_of(name, row), row["shard"], row["licence"], tuple(turns or ())
                    )


COPY_REQUESTS = (
    "请重复这句话：{}",
    "请把下面的话原样说一遍：{}",
    "照着念：{}",
    "“{}”这句话怎么写？",
    "跟我说：{}",
)
LOOKUPS = ("编号", "地址", "生日", "价格", "主人", "颜色", "名字", "年份", "出处")


def exercise(rng: random.Random, phrase: str, other: str) -> tuple[str, str]:
    """A request and its answer: say a phrase again, or find in the request what belongs to it."""
    if rng.random() < 0.5:
        return rng.choice(COPY_REQUESTS).format(phrase), phrase
    key = rng.choice(LOOKUPS)
    values = (
        [str(rng.randint(1900, 2030)), other] if rng.random() < 0.5 else [other, str(rng.randint(1, 999))]
    )
    known = [f"{phrase}的{key}是{values[0]}。", f"{other}的{key}是{values[1]}。"]
    rng.shuffle(known)
    return f"{''.join(known)}{phrase}的{key}是什么？", f"{phrase}的{key}是{values[0]}。"


def copy_exercises(documents: Sequence[Document], count: int, seed: int) -> list[Document]:
    """Requests made from phrases of prose whose answer has to be copied.

    They teach the base to copy rare names from its context.
    """
    rng = random.Random(seed)
    prose = [d for d in documents if d.group == "prose" and not d.held_out]

    def phrase(longest: int) -> str:
        return (
            rng.choice(re.split(r"[，。！？；：\n]", rng.choice(prose).text))[
                : rng.randint(2, longest)
            ].strip()
            or "你好"
        )

    exercises = []
    for _ in range(count):
        request, answer = exercise(rng, phrase(24), phrase(6))
        turns = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
        exercises.append(
            Document("".join(t for t, _ in chat_segments(turns)), "copy", "copy", "own", tuple(turns))
        )
    return exercises


def encode_flat(texts: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """All texts' ids one after another, each with the end-of-text token; uint16 (n,)."""
    encoded = tokenizer.encode_batch_fast([text + PAD for text in texts])
    return np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encoded])


def bits_per_byte(model: MiniMind, tokenizer: Tokenizer, texts: Sequence[str], width: int = 256) -> float:
    """Cross-entropy per UTF-8 byte, in bits.

    Texts are packed into rows of `width` tokens as in training, the last partial row left out.
    """
    flat = torch.from_numpy(encode_flat(texts, tokenizer).astype(np.int64))
    rows = flat[: (len(flat) - 1) // width * width + 1].unfold(0, width + 1, width)
    nats = mean_loss(model, [Batch(row[None, :-1], row[None, 1:]) for row in rows]) * rows[:, 1:].numel()
    size = sum(len(text.encode()) for text in texts) * rows[:, 1:].numel() / len(flat)
    return nats / math.log(2) / size
