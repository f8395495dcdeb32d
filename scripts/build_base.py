"""Train the embedded base model: tokenizer, then a stack that grows from 2 to 8 layers on a mix that turns to chat.

    python scripts/build_base.py --corpus FOLDER --work runs/base [--plan cpu|probe]

Run it again after an interruption: each stage goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from minimind_core.config import ModelConfig, TrainConfig
from minimind_core.files import replacing, write_json
from minimind_core.modeling.checkpoint import save_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import load_tokenizer, train_tokenizer
from minimind_core.training import pretraining
from minimind_core.training.trainer import train

ROW = 256  # tokens a row
EARLY = {"prose": 0.42, "counselling": 0.15, "docs": 0.05, "law": 0.03, "dialogue": 0.27, "copy": 0.08}
MIDDLE = {"prose": 0.30, "counselling": 0.12, "docs": 0.03, "law": 0.02, "dialogue": 0.43, "copy": 0.10}
LATE = {"prose": 0.15, "counselling": 0.08, "docs": 0.01, "law": 0.01, "dialogue": 0.65, "copy": 0.10}


@dataclass(frozen=True)
class Stage:
    """One depth of the growing stack."""

    layers: int
    tokens: int
    rows_per_step: int
    shares: dict[str, float]
    train: TrainConfig


def plan(name: str) -> list[Stage]:
    """Stages by machine: `cpu` is about 90 minutes on two AVX2 cores, `probe` seconds for a trial."""
    flat = TrainConfig(3e-3, matrix_learning_rate=0.02, warmup=0.02, decay=0.0, compile=True)
    last = TrainConfig(3e-3, matrix_learning_rate=0.02, warmup=0.02, decay=0.8, compile=True)
    if name == "probe":
        quick = TrainConfig(3e-3, matrix_learning_rate=0.02)
        return [Stage(2, 20_000, 8, EARLY, quick), Stage(4, 10_000, 8, MIDDLE, quick), Stage(8, 10_000, 8, LATE, quick)]
    return [
        Stage(2, 2_100_000, 16, EARLY, flat),
        Stage(4, 1_000_000, 16, MIDDLE, flat),
        Stage(8, 900_000, 24, LATE, last),
    ]


def prepare(corpus: Path, work: Path, stages: list[Stage]) -> None:
    """Write the tokenizer and each stage's packed rows, unless they are there."""
    if all((work / f"stage{i}.npy").exists() for i in range(len(stages))):
        return
    documents = list(pretraining.read_corpus(corpus))
    print(f"{len(documents)} documents after filtering", flush=True)
    if not (work / "tokenizer.json").exists():
        sample = pretraining.sample_mix(documents, MIDDLE, 6_000_000, seed=1)
        with replacing(work / "tokenizer.json") as temporary:
            train_tokenizer((d.text for d in sample), ModelConfig.vocab_size).save(str(temporary))
    tokenizer = load_tokenizer(work / "tokenizer.json")
    used = []
    for index, stage in enumerate(stages):
        chosen = pretraining.sample_mix(documents, stage.shares, stage.tokens, seed=100 + index)
        rows = pretraining.pack(chosen, tokenizer, ROW)
        used += [(d.key, d.group, d.shard, d.licence, len(d.text)) for d in chosen]
        with replacing(work / f"stage{index}.npy") as temporary:
            np.save(temporary, rows)
        print(f"stage {index}: {rows.size:,} tokens of {len(chosen)} documents", flush=True)
    write_json(work / "documents.json", used)
    held_out = [(d.group, d.text) for d in documents if d.held_out]
    write_json(work / "held_out.json", held_out)


def run_stage(index: int, stage: Stage, work: Path) -> Path:
    """Train one stage (or go on with it) and return its final weights' file."""
    final = work / f"stage{index}.pt"
    if final.exists():
        return final
    torch.manual_seed(index)
    model = MiniMind(ModelConfig(n_layers=stage.layers))
    if index:
        below = torch.load(work / f"stage{index - 1}.pt", weights_only=True)
        model.load_state_dict(pretraining.grow(below, stage.layers))
    source = pretraining.PackedRows(np.load(work / f"stage{index}.npy"), stage.rows_per_step)
    log = (work / f"stage{index}.csv").open("a")
    for record in train(model, source, stage.train, checkpoint=work / f"stage{index}.checkpoint.pt"):
        print(f"{record.step},{record.tokens},{record.loss:.4f},{record.mean_loss:.4f},{record.seconds:.1f}", file=log, flush=True)
        if record.step % 10 == 0:
            print(
                f"stage {index} step {record.step}/{record.total_steps} loss {record.mean_loss:.3f} "
                f"{record.tokens_per_second:.0f} tokens/s {record.seconds:.0f} s",
                flush=True,
            )
    with replacing(final) as temporary:
        torch.save(model.state_dict(), temporary)
    return final


def main() -> None:
    """Parse arguments and run all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/base"))
    parser.add_argument("--out", type=Path, default=Path("weights/base"))
    parser.add_argument("--plan", choices=("cpu", "probe"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stages = plan(arguments.plan)
    started = time.time()
    prepare(arguments.corpus, arguments.work, stages)
    print(f"prepared in {time.time() - started:.0f} s", flush=True)
    for index, stage in enumerate(stages):
        final = run_stage(index, stage, arguments.work)
    model = MiniMind(ModelConfig())
    model.load_state_dict(torch.load(final, weights_only=True))
    save_base(model, load_tokenizer(arguments.work / "tokenizer.json"), arguments.out)
    print(json.dumps({"written": str(arguments.out)}))


if __name__ == "__main__":
    main()
