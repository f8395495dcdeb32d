"""Train the embedded base model: tokenizer, then a stack that grows from 2 to 8 layers on a mix that turns to chat.

    python scripts/build_base.py --corpus FOLDER --work runs/base [--plan cpu|cuda|probe]

Run it again after an interruption: each stage goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from minimind_core.config import ModelConfig, TrainConfig
from minimind_core.devices import choose_device, fast_bfloat16
from minimind_core.evaluation import base_quality
from minimind_core.evaluation.generation import Decoding
from minimind_core.files import replacing, write_json, write_text
from minimind_core.modeling.checkpoint import save_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import load_tokenizer, train_tokenizer
from minimind_core.reporting.figures import base_loss_figure
from minimind_core.training import pretraining
from minimind_core.training.trainer import train

ROW = 256  # tokens a row
HELD_OUT = 60  # held-out documents of each group that are measured
NGRAM_CHARACTERS = 2_000_000  # of the training mix that the 5-gram model sees
TESTS = Path(__file__).resolve().parents[1] / "tests" / "data"
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
    """Stages by machine: `cpu` is about two hours on two AVX-512 cores, `cuda` minutes on one GPU, `probe` seconds for a trial."""
    flat = TrainConfig(3e-3, matrix_learning_rate=0.02, warmup=0.02, decay=0.0, compile=True)
    last = TrainConfig(3e-3, matrix_learning_rate=0.02, warmup=0.02, decay=0.7, compile=True)
    if name == "probe":
        quick = TrainConfig(3e-3, matrix_learning_rate=0.02)
        return [Stage(2, 20_000, 8, EARLY, quick), Stage(4, 10_000, 8, MIDDLE, quick), Stage(8, 10_000, 8, LATE, quick)]
    if name == "cuda":
        return [Stage(8, 200_000_000, 256, EARLY, flat), Stage(8, 100_000_000, 256, LATE, last)]
    return [Stage(2, 6_000_000, 16, EARLY, flat), Stage(4, 8_000_000, 24, MIDDLE, flat, steps=700), Stage(8, 5_500_000, 32, LATE, last, steps=350)]


def prepare(corpus: Path, work: Path, stages: list[Stage]) -> None:
    """Write the tokenizer and each stage's packed rows, unless they are there."""
    if all((work / name).exists() for name in ("held_out.json", *(f"stage{i}.npy" for i in range(len(stages))))):
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
        rows = pretraining.pack(chosen, tokenizer, ROW)[: stage.steps * stage.rows_per_step if stage.steps else None]
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


def measure(work: Path, stages: list[Stage], model: MiniMind, tokenizer: Tokenizer) -> dict:
    """What the model card says: data, steps, time, and held-out bits per byte."""
    shards: dict[tuple[str, str, str], int] = {}
    for _, group, shard, licence, characters in json.loads((work / "documents.json").read_text(encoding="utf-8")):
        shards[group, shard, licence] = shards.get((group, shard, licence), 0) + characters
    course, seen = [], 0
    for index, stage in enumerate(stages):
        rows = np.load(work / f"stage{index}.npy")
        steps = [line.split(",") for line in (work / f"stage{index}.csv").read_text().splitlines()]
        last, a_step = steps[-1], stage.rows_per_step * ROW
        tokens = int(last[0]) * a_step
        curve = [(seen + int(step[0]) * a_step, float(step[3])) for step in steps[:: max(1, len(steps) // 60)]]
        seen += tokens
        course.append(
            {
                "layers": stage.layers,
                "steps": int(last[0]),
                "tokens": tokens,
                "rows": len(rows),
                "mean_loss": float(last[3]),
                "curve": curve,
                "seconds": float(last[4]),
            }
        )
    held_out = measure_held_out(work, stages, model, tokenizer)
    prompts = (TESTS / "everyday_prompts.txt").read_text(encoding="utf-8").splitlines()
    with (TESTS.parents[1] / "dataset" / "facts.csv").open(encoding="utf-8", newline="") as lines:
        names = sorted({row["subject"] for row in csv.DictReader(lines)})[:100]
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__, "platform": platform.platform(),
        "precision": "bfloat16" if fast_bfloat16(model.device.type) else "float32", "device": str(model.device), "stages": course,
        "held_out_documents_per_group": HELD_OUT, **held_out, "copying": base_quality.copying(model, tokenizer, names),
        "everyday": base_quality.everyday(model, tokenizer, prompts),
        "characters": [{"group": g, "shard": s, "licence": licence, "characters": n} for (g, s, licence), n in sorted(shards.items())],
    }  # fmt: skip


def measure_held_out(work: Path, stages: list[Stage], model: MiniMind, tokenizer: Tokenizer) -> dict:
    """Bits per byte of held-out documents by group and over all: the model, `xz -9`, and 5-grams of the last stage's rows."""
    groups: dict[str, list[str]] = {}
    for group, text in json.loads((work / "held_out.json").read_text(encoding="utf-8")):
        if len(groups.setdefault(group, [])) < HELD_OUT:
            groups[group].append(text)
    groups["all"] = [text for texts in groups.values() for text in texts]
    rows = np.concatenate([np.load(work / f"stage{i}.npy") for i in range(len(stages))])
    np.random.default_rng(0).shuffle(rows)
    taught = tokenizer.decode_batch(rows[: NGRAM_CHARACTERS // ROW, 1:].tolist(), skip_special_tokens=False)
    ngram = base_quality.NGram(taught)
    size = sum(len(t.encode()) for t in groups["all"])
    count = sum(len(e.ids) for e in tokenizer.encode_batch_fast(groups["all"]))
    return {
        "bytes_per_token": size / count,
        "characters_per_token": sum(map(len, groups["all"])) / count,
        "held_out_bits_per_byte": {g: pretraining.bits_per_byte(model, tokenizer, texts) for g, texts in sorted(groups.items())},
        "xz_bits_per_byte": {g: base_quality.xz_bits_per_byte(texts) for g, texts in sorted(groups.items())},
        "five_gram_bits_per_byte": {g: ngram.bits_per_byte(texts) for g, texts in sorted(groups.items())},
    }


def write_hashes(work: Path, folder: Path) -> None:
    """documents.npz: sorted 64-bit hashes of all documents trained on and of all held out, for the tests."""
    trained = {key for key, *_ in json.loads((work / "documents.json").read_text(encoding="utf-8"))}
    kept = {pretraining.text_key(text) for _, text in json.loads((work / "held_out.json").read_text(encoding="utf-8"))}
    with replacing(folder / "documents.npz") as temporary:
        np.savez_compressed(temporary, trained=np.array(sorted(trained), np.uint64), held_out=np.array(sorted(kept), np.uint64))


def write_card(folder: Path, facts: dict) -> None:
    """training.json and the Chinese model card made from it."""
    write_json(folder / "training.json", facts)
    stages = "\n".join(
        f"| {s['layers']} | {s['steps']} | {s['tokens']:,} | {s['mean_loss']:.3f} | {s['seconds'] / 60:.0f} |" for s in facts["stages"]
    )
    kinds = ("held_out_bits_per_byte", "five_gram_bits_per_byte", "xz_bits_per_byte")
    bits = "\n".join(f"| {group} | " + " | ".join(f"{facts[kind][group]:.3f}" for kind in kinds) + " |" for group in facts[kinds[0]])
    answers = "\n".join(f"| {a['question']} | {a['answer'].replace(chr(10), ' ')} |" for a in facts["everyday"]["answers"][:30])
    a_token = facts["characters_per_token"]
    data = "\n".join(
        f"| {d['group']} | {d['shard']} | {d['licence']} | {d['characters']:,} | {d['characters'] / a_token:,.0f} |" for d in facts["characters"]
    )
    base_loss_figure([stage["curve"] for stage in facts["stages"]]).savefig(folder / "loss.png", dpi=110, bbox_inches="tight")
    template = (Path(__file__).parent / "base_card.md").read_text(encoding="utf-8")
    everyday, copied = facts["everyday"], facts["copying"]
    values = {
        "penalty": str(Decoding().repetition_penalty), "stages": stages, "bits": bits, "data": data, "answers": answers,
        "parameters": f"{facts['parameters']:,}",
        "hardware": f"{facts['platform']}，{facts['precision']}", "minutes": f"{sum(s['seconds'] for s in facts['stages']) / 60:.0f}",
        "tokens": f"{sum(s['tokens'] for s in facts['stages']):,}", "copying": f"{copied['right']}/{copied['n']}",
        "ended": f"{everyday['ended']['share']:.0%}", "repetition": f"{everyday['repetition']['share']:.0%}",
        "bytes": f"{facts['bytes_per_token']:.2f}", "documents": str(facts["held_out_documents_per_group"]),
    }  # fmt: skip
    for name, value in values.items():
        template = template.replace("{{" + name + "}}", value)
    write_text(folder / "README.md", template)


def main() -> None:
    """Parse arguments and run all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/base"))
    parser.add_argument("--out", type=Path, help="default weights/base; for probe WORK/probe/out")
    parser.add_argument("--plan", choices=("cpu", "cuda", "probe"), default="cpu")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu or auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stages = plan(arguments.plan)
    arguments.work = arguments.work / arguments.plan  # plans have files of the same names
    arguments.out = arguments.out or (Path("weights/base") if arguments.plan != "probe" else arguments.work / "out")
    started = time.time()
    prepare(arguments.corpus, arguments.work, stages)
    print(f"prepared in {time.time() - started:.0f} s", flush=True)
    device = choose_device(arguments.device)
    for index, stage in enumerate(stages):
        final = run_stage(index, stage, arguments.work, device)
    model = MiniMind(ModelConfig())
    model.load_state_dict(torch.load(final, weights_only=True))
    tokenizer = load_tokenizer(arguments.work / "tokenizer.json")
    model.eval()
    save_base(model, tokenizer, arguments.out)
    write_hashes(arguments.work, arguments.out)
    base_quality.write_rehearsal(arguments.out)
    write_card(arguments.out, measure(arguments.work, stages, model, tokenizer))


if __name__ == "__main__":
    main()
