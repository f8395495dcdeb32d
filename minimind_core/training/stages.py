"""Pretraining on a CPU by a stack that grows: few layers first, more on the same texts turned to chat."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from minimind_core.config import ModelConfig, TrainConfig
from minimind_core.files import replacing, write_json
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import load_tokenizer, train_tokenizer
from minimind_core.training import pretraining
from minimind_core.training.trainer import train

ROW = 256  # tokens a row
EARLY = {"prose": 0.38, "counselling": 0.14, "docs": 0.13, "law": 0.10, "dialogue": 0.20, "copy": 0.05}
MIDDLE = {"prose": 0.28, "counselling": 0.12, "docs": 0.10, "law": 0.06, "dialogue": 0.36, "copy": 0.08}
LATE = {"prose": 0.18, "counselling": 0.10, "docs": 0.06, "law": 0.04, "dialogue": 0.54, "copy": 0.08}


@dataclass(frozen=True)
class Stage:
    """One depth of the growing stack."""

    layers: int
    tokens: int
    rows_per_step: int
    shares: dict[str, float]
    train: TrainConfig
    steps: int | None = None  # at most this many optimizer steps


def plan(name: str) -> list[Stage]:
    """Stages: `cpu` is about two hours on two AVX-512 cores, `probe` seconds for a trial."""
    flat = TrainConfig(3e-3, matrix_learning_rate=0.02, warmup=0.02, decay=0.0, compile=True)
    last = TrainConfig(3e-3, matrix_learning_rate=0.02, warmup=0.02, decay=0.7, compile=True)
    if name == "probe":
        quick = TrainConfig(3e-3, matrix_learning_rate=0.02)
        return [
            Stage(2, 20_000, 8, EARLY, quick),
            Stage(4, 10_000, 8, MIDDLE, quick),
            Stage(8, 10_000, 8, LATE, quick),
        ]
    return [
        Stage(2, 6_000_000, 16, EARLY, flat),
        Stage(4, 8_000_000, 24, MIDDLE, flat, steps=700),
        Stage(8, 5_500_000, 32, LATE, last, steps=350),
    ]


def prepare(corpus: Path, work: Path, stages: list[Stage], held_back: re.Pattern[str]) -> None:
    """Write the tokenizer and each stage's packed rows, unless they are there."""
    if all(
        (work / name).exists() for name in ("held_out.json", *(f"stage{i}.npy" for i in range(len(stages))))
    ):
        return
    documents = list(pretraining.read_corpus(corpus, held_back))
    print(f"{len(documents)} documents after filtering", flush=True)
    if not (work / "tokenizer.json").exists():
        sample = pretraining.sample_mix(documents, MIDDLE, 6_000_000, seed=1)
        with replacing(work / "tokenizer.json") as temporary:
            train_tokenizer((d.text for d in sample), ModelConfig.vocab_size).save(str(temporary))
    tokenizer = load_tokenizer(work / "tokenizer.json")
    used = []
    for index, stage in enumerate(stages):
        chosen = pretraining.sample_mix(documents, stage.shares, stage.tokens, seed=100 + index)
        rows = pretraining.pack(chosen, tokenizer, ROW)[
            : stage.steps * stage.rows_per_step if stage.steps else None
        ]
        used += [(d.key, d.group, d.shard, d.licence, len(d.text)) for d in chosen]
        with replacing(work / f"stage{index}.npy") as temporary:
            np.save(temporary, rows)
        print(f"stage {index}: {rows.size:,} tokens of {len(chosen)} documents", flush=True)
    write_json(work / "documents.json", used)
    held_out = [(d.group, d.text) for d in documents if d.held_out]
    write_json(work / "held_out.json", held_out)


def run_stage(index: int, stage: Stage, work: Path, device: torch.device) -> Path:
    """Train one stage (or go on with it) and return its final weights' file."""
    final = work / f"stage{index}.pt"
    if final.exists():
        return final
    torch.manual_seed(index)
    model = MiniMind(ModelConfig(n_layers=stage.layers))
    if index:
        below = torch.load(work / f"stage{index - 1}.pt", weights_only=True)
        model.load_state_dict(pretraining.grow(below, stage.layers))
    model.to(device)
    source = pretraining.PackedRows(np.load(work / f"stage{index}.npy"), stage.rows_per_step)
    log = (work / f"stage{index}.csv").open("a")
    for record in train(model, source, stage.train, checkpoint=work / f"stage{index}.checkpoint.pt"):
        print(
            f"{record.step},{record.tokens},{record.loss:.4f},{record.mean_loss:.4f},{record.seconds:.1f}",
            file=log,
            flush=True,
        )
        if record.step % 10 == 0:
            print(
                f"stage {index} step {record.step}/{record.total_steps} loss {record.mean_loss:.3f} "
                f"{record.tokens_per_second:.0f} tokens/s {record.seconds:.0f} s",
                flush=True,
            )
    with replacing(final) as temporary:
        torch.save(model.state_dict(), temporary)
    return final


def course_of_stages(work: Path, stages: list[Stage]) -> list[dict]:
    """What each stage of the growing stack did, for the card."""
    course, seen = [], 0
    for index, stage in enumerate(stages):
        steps = [line.split(",") for line in (work / f"stage{index}.csv").read_text().splitlines()]
        last, a_step = steps[-1], stage.rows_per_step * ROW
        tokens = int(last[0]) * a_step
        curve = [
            (seen + int(step[0]) * a_step, float(step[3])) for step in steps[:: max(1, len(steps) // 60)]
        ]
        seen += tokens
        course.append({
            "name": f"{stage.layers} 层", "steps": int(last[0]), "tokens": tokens,
            "mean_loss": float(last[3]),
            "curve": curve, "seconds": float(last[4]),
        })  # fmt: skip
    return course
