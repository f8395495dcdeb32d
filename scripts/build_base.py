"""Train the embedded base model, measure it and write its card.

    python scripts/build_base.py --corpus FOLDER [--plan cpu|cuda|probe|probe-cuda] [--seconds 395]

cpu: a stack that grows from 2 to 8 layers on a mix that turns to chat; run it again after an interruption,
and each stage goes on from its last checkpoint. cuda: eight layers for as long as the time budget lasts, on
one GPU. The probes try both on a little text. `--finished FOLDER` trains nothing: it measures what the cuda
plan has left there on another machine.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from minimind_core.config import ModelConfig, TrainConfig
from minimind_core.devices import choose_device
from minimind_core.files import replacing, write_json
from minimind_core.modeling.checkpoint import load_base, save_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import load_tokenizer, train_tokenizer
from minimind_core.reporting.base_card import compare_with, course_of_budget, measure, write_card
from minimind_core.training import budget, pretraining
from minimind_core.training.stages import MIDDLE, ROW, course_of_stages, plan, prepare, run_stage

# names that the base must not know: those of the shipped example's people
HELD_BACK = pretraining.names_pattern(Path(__file__).with_name("held_back.txt"))
NGRAM_CHARACTERS = 2_000_000  # of the training mix that the 5-gram model sees


def ngram_texts(documents: list[pretraining.Document]) -> list[str]:
    """NGRAM_CHARACTERS of the training texts, drawn over all groups."""
    order = np.random.default_rng(0).permutation(len(documents))
    texts, left = [], NGRAM_CHARACTERS
    for index in order:
        if left <= 0:
            break
        texts.append(documents[index].text)
        left -= len(texts[-1])
    return texts


def read_all(corpus: Path, work: Path, copies: int) -> list[pretraining.Document]:
    """The corpus and its copying exercises.

    Notes in the work folder what is trained on and what is held out.
    """
    documents = list(pretraining.read_corpus(corpus, HELD_BACK))
    documents += pretraining.copy_exercises(documents, copies, seed=1)
    trained = [d for d in documents if not d.held_out]
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / "documents.json", [(d.key, d.group, d.shard, d.licence, len(d.text)) for d in trained])
    write_json(
        work / "held_out.json", [(d.group, d.text) for d in documents if d.held_out and d.group != "copy"]
    )
    return trained


def train_on_gpu(
    documents: list[pretraining.Document], work: Path, plan: budget.BudgetPlan, device: torch.device
) -> MiniMind:
    """The cuda plan: fill the budget, and leave log.csv and the weights in the work folder."""
    if not (work / "tokenizer.json").exists():
        sample = pretraining.sample_mix(documents, MIDDLE, 6_000_000, seed=1)
        with replacing(work / "tokenizer.json") as temporary:
            train_tokenizer((d.text for d in sample), ModelConfig.vocab_size).save(str(temporary))
    tokenizer = load_tokenizer(work / "tokenizer.json")
    groups = {}
    for number, name in enumerate(dict.fromkeys(d.group for d in documents)):
        ids = pretraining.encode_flat([d for d in documents if d.group == name], tokenizer)
        if len(ids) > 2 * plan.width:
            groups[name] = budget.PackedGroup(ids, plan.width, number)
    talks = [
        (budget.chat_row(tokenizer, d.turns, max(plan.chat_widths)), d.weight) for d in documents if d.turns
    ]
    kept = [(row, weight) for row, weight in talks if row is not None]
    chats = budget.ChatRows(
        [row for row, _ in kept], [weight for _, weight in kept], plan.chat_widths, seed=2
    )
    torch.manual_seed(0)
    model = MiniMind(ModelConfig()).to(device)
    with (work / "log.csv").open("w", encoding="utf-8", newline="") as file:
        log = csv.DictWriter(file, ("step", "tokens", "seconds", "stage", "loss", "factor"))
        log.writeheader()
        for record in budget.train_within(model, groups, chats, plan):
            log.writerow(record)
            if record["step"] % 200 == 0:
                print(record, flush=True)
    write_json(
        work / "facts.json",
        {"device": device_name(device), "passes": {name: g.passes for name, g in groups.items()}},
    )
    return model


def device_name(device: torch.device) -> str:
    """What the card calls the machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def write_hashes(work: Path, folder: Path) -> None:
    """documents.npz: sorted 64-bit hashes of all documents trained on and of all held out, for the tests."""
    trained = {key for key, *_ in json.loads((work / "documents.json").read_text(encoding="utf-8"))}
    kept = {
        pretraining.text_key(text)
        for _, text in json.loads((work / "held_out.json").read_text(encoding="utf-8"))
    }
    with replacing(folder / "documents.npz") as temporary:
        np.savez_compressed(
            temporary,
            trained=np.array(sorted(trained), np.uint64),
            held_out=np.array(sorted(kept), np.uint64),
        )


def build_by_stages(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[MiniMind, list[dict], list[str]]:
    """The cpu plan and its probe: model, course and training texts for the 5-grams."""
    stages, work = plan(arguments.plan), arguments.work
    prepare(arguments.corpus, work, stages, HELD_BACK)
    for index, stage in enumerate(stages):
        final = run_stage(index, stage, work, device)
    model = MiniMind(ModelConfig())
    model.load_state_dict(torch.load(final, weights_only=True))
    rows = np.concatenate([np.load(work / f"stage{i}.npy") for i in range(len(stages))])
    np.random.default_rng(0).shuffle(rows)
    tokenizer = load_tokenizer(work / "tokenizer.json")
    texts = tokenizer.decode_batch(rows[: NGRAM_CHARACTERS // ROW, 1:].tolist(), skip_special_tokens=False)
    return model, course_of_stages(work, stages), texts


def build_within_budget(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[MiniMind, list[dict], list[str]]:
    """The cuda plan, its probe, or what it has left elsewhere."""
    work, probe = arguments.work, arguments.plan == "probe-cuda"
    documents = read_all(arguments.corpus, work, 200 if probe else 40_000)
    if arguments.finished:
        model, _ = load_base(arguments.finished)
        course = course_of_budget(arguments.finished)
    else:
        chosen = budget.BudgetPlan(seconds=arguments.seconds)
        if probe:
            quick = TrainConfig(3e-3, matrix_learning_rate=0.02, matrix_decay=0.02)
            chosen = replace(chosen, tokens_per_step=1024, train=quick)
        model = train_on_gpu(documents, work, chosen, device)
        course = course_of_budget(work)
    return model.float().cpu(), course, ngram_texts(documents)


def trained_on(notes: Path, facts: dict, device: torch.device) -> str:
    """Machine and precision: of the notes that a budget run leaves, or else of this machine."""
    if notes.is_file():
        return f"{json.loads(notes.read_text(encoding='utf-8'))['device']}，bfloat16"
    return f"{facts['platform']}，{facts['precision'] if device.type == 'cpu' else 'bfloat16'}"


def parse_arguments() -> argparse.Namespace:
    """The command line; plans have files of the same names, so that each gets a folder of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/base"))
    parser.add_argument("--out", type=Path, help="default weights/base; for a probe WORK/PLAN/out")
    parser.add_argument("--plan", choices=("cpu", "cuda", "probe", "probe-cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=395.0, help="time budget of the cuda plan")
    parser.add_argument(
        "--finished",
        type=Path,
        help="folder that the cuda plan has left: weights, tokenizer, log.csv, facts.json",
    )
    parser.add_argument("--previous", type=Path, help="another base, to be set beside in the card")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu or auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    arguments.work = arguments.work / arguments.plan
    probe = arguments.plan.startswith("probe")
    arguments.out = arguments.out or (arguments.work / "out" if probe else Path("weights/base"))
    return arguments


def main() -> None:
    """Train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    build = build_within_budget if "cuda" in arguments.plan else build_by_stages
    model, course, texts = build(arguments, device)
    folder = arguments.finished or arguments.work
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    model.eval()
    save_base(model, tokenizer, arguments.out)
    write_hashes(arguments.work, arguments.out)
    facts = {"stages": course, **measure(arguments.work, model, tokenizer, texts)}
    facts["hardware"] = trained_on(folder / "facts.json", facts, device)
    if arguments.previous:
        facts["previous_bits_per_byte"] = compare_with(arguments.previous, arguments.work)
    write_card(arguments.out, facts)


if __name__ == "__main__":
    main()
