"""What a base model is worth: its measurements, and the card made from them."""

from __future__ import annotations

import csv
import platform
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from minimind_core.devices import fast_bfloat16
from minimind_core.evaluation import base_quality
from minimind_core.files import write_json, write_text
from minimind_core.inference.decoding import Decoding
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.reporting.figures import base_loss_figure
from minimind_core.training.pretraining import Document, bits_per_byte

NGRAM_CHARACTERS = 2_000_000  # of the training texts that the 5-gram model sees
HELD_OUT = 60  # held-out documents of each group that are measured
PROJECT = Path(__file__).resolve().parents[2]
TEMPLATE = PROJECT / "scripts" / "base_card.md"
PROMPTS = PROJECT / "tests" / "data" / "everyday_prompts.txt"


def course_of_budget(folder: Path) -> list[dict]:
    """What each stage of a training within a time budget did.

    Texts, then conversations (loss on answers only).
    """
    course: list[dict] = []
    with (folder / "log.csv").open(encoding="utf-8", newline="") as lines:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    for stage, name in ((0, "文章和对话，全部词元"), (1, "四步里三步是对话，只算回答")):
        own = [row for row in rows if row["stage"] == stage]
        if not own:
            continue
        begin = course[-1] if course else {"steps": 0, "tokens": 0, "seconds": 0.0}
        size = max(1, len(own) // 60)
        chunks = [own[i : i + size] for i in range(0, len(own), size)]
        curve = [(chunk[-1]["tokens"], sum(row["loss"] for row in chunk) / len(chunk)) for chunk in chunks]
        course.append({
            "name": name, "steps": int(own[-1]["step"]) - begin["steps"],
            "tokens": int(own[-1]["tokens"]) - begin["tokens"],
            "mean_loss": curve[-1][1], "curve": curve, "seconds": own[-1]["seconds"] - begin["seconds"],
        })  # fmt: skip
    return course


def measure(documents: list[Document], model: MiniMind, tokenizer: Tokenizer) -> dict:
    """What the model card says of a base beside its course.

    Data, held-out bits per byte, copying, everyday answers.
    """
    shards: Counter[tuple[str, str, str]] = Counter()
    for d in documents:
        if not d.held_out:
            shards[d.group, d.shard, d.licence] += len(d.text)
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    with (PROJECT / "dataset" / "facts.csv").open(encoding="utf-8", newline="") as lines:
        names = sorted({row["subject"] for row in csv.DictReader(lines)})[:100]
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__,
        "platform": platform.platform(),
        "precision": "bfloat16" if fast_bfloat16(model.device.type) else "float32",
        "device": str(model.device),
        "held_out_documents_per_group": HELD_OUT, **measure_held_out(documents, model, tokenizer),
        "copying": base_quality.copying(model, tokenizer, names),
        "everyday": base_quality.everyday(model, tokenizer, prompts),
        "characters": [
            {"group": group, "shard": shard, "licence": licence, "characters": number}
            for (group, shard, licence), number in sorted(shards.items())
        ],
    }  # fmt: skip


def held_out_groups(documents: list[Document]) -> dict[str, list[str]]:
    """Up to HELD_OUT held-out documents of each group, and all of them together."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for d in documents:
        if d.held_out and d.group != "copy" and len(groups[d.group]) < HELD_OUT:
            groups[d.group].append(d.text)
    groups["all"] = [text for texts in groups.values() for text in texts]
    return groups


def ngram_texts(documents: list[Document]) -> list[str]:
    """NGRAM_CHARACTERS of the training texts, drawn over all groups."""
    texts, left = [], NGRAM_CHARACTERS
    trained = [d for d in documents if not d.held_out]
    for index in np.random.default_rng(0).permutation(len(trained)):
        if left <= 0:
            break
        texts.append(trained[index].text)
        left -= len(texts[-1])
    return texts


def measure_held_out(documents: list[Document], model: MiniMind, tokenizer: Tokenizer) -> dict:
    """Bits per byte of held-out documents by group and over all.

    The model, `xz -9`, and 5-grams of training texts.
    """
    groups, ngram = held_out_groups(documents), base_quality.NGram(ngram_texts(documents))
    size = sum(len(t.encode()) for t in groups["all"])
    count = sum(len(e.ids) for e in tokenizer.encode_batch_fast(groups["all"]))
    return {
        "bytes_per_token": size / count,
        "characters_per_token": sum(map(len, groups["all"])) / count,
        "held_out_bits_per_byte": {
            g: bits_per_byte(model, tokenizer, own) for g, own in sorted(groups.items())
        },
        "xz_bits_per_byte": {g: base_quality.xz_bits_per_byte(own) for g, own in sorted(groups.items())},
        "five_gram_bits_per_byte": {g: ngram.bits_per_byte(own) for g, own in sorted(groups.items())},
    }


def compare_with(previous: Path, documents: list[Document]) -> dict[str, float]:
    """Held-out bits per byte of another base, to be set beside."""
    model, tokenizer = load_base(previous)
    groups = held_out_groups(documents)
    return {g: bits_per_byte(model.eval(), tokenizer, own) for g, own in sorted(groups.items())}


def write_card(folder: Path, facts: dict) -> None:
    """training.json and the Chinese model card made from it."""
    write_json(folder / "training.json", facts)
    curves = [stage["curve"] for stage in facts["stages"]]
    base_loss_figure(curves).savefig(folder / "loss.png", dpi=110, bbox_inches="tight")
    template = TEMPLATE.read_text(encoding="utf-8")
    for name, value in card_values(facts).items():
        template = template.replace("{{" + name + "}}", value)
    write_text(folder / "README.md", template)


def card_values(facts: dict) -> dict[str, str]:
    """What the card's marks stand for."""
    stages = "\n".join(
        f"| {s['name']} | {s['steps']:,} | {s['tokens']:,} | {s['mean_loss']:.3f} | {s['seconds'] / 60:.1f} |"
        for s in facts["stages"]
    )
    kinds = ["held_out_bits_per_byte", "five_gram_bits_per_byte", "xz_bits_per_byte"]
    before = facts.get("previous_bits_per_byte", {})

    def bits_of(group: str) -> str:
        cells = [f"{facts[kind][group]:.3f}" for kind in kinds]
        return " | ".join([group, cells[0], f"{before[group]:.3f}" if group in before else "—", *cells[1:]])

    answers = "\n".join(
        f"| {a['question']} | {a['answer'].replace(chr(10), ' ')} |"
        for a in facts["everyday"]["answers"][:30]
    )
    a_token = facts["characters_per_token"]
    data = "\n".join(
        f"| {d['group']} | {d['shard']} | {d['licence']} | "
        f"{d['characters']:,} | {d['characters'] / a_token:,.0f} |"
        for d in facts["characters"]
    )
    everyday, copied = facts["everyday"], facts["copying"]
    return {
        "penalty": str(Decoding().repetition_penalty), "stages": stages, "data": data, "answers": answers,
        "bits": "\n".join(f"| {bits_of(group)} |" for group in facts[kinds[0]]),
        "parameters": f"{facts['parameters']:,}",
        "hardware": facts["hardware"], "minutes": f"{sum(s['seconds'] for s in facts['stages']) / 60:.1f}",
        "tokens": f"{sum(s['tokens'] for s in facts['stages']):,}",
        "copying": f"{copied['right']}/{copied['n']}",
        "ended": f"{everyday['ended']['share']:.0%}", "repetition": f"{everyday['repetition']['share']:.0%}",
        "bytes": f"{facts['bytes_per_token']:.2f}", "documents": str(facts["held_out_documents_per_group"]),
    }  # fmt: skip
