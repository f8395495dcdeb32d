"""Train the embedded base model, measure it and write its card.

    python scripts/build_base.py --corpus FOLDER [--seconds 395] [--probe]

Eight layers for as long as the time budget lasts, on one GPU (a CPU does it, too, with little to show). The
probe tries it on a little text. `--finished FOLDER` trains nothing: it measures what a training has left
there on another machine.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from minimind_core.config import ModelConfig
from minimind_core.conversations.schema import Conversation
from minimind_core.devices import choose_device
from minimind_core.files import replacing, write_json
from minimind_core.modeling.checkpoint import load_base, save_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import load_tokenizer, train_tokenizer
from minimind_core.reporting.base_card import compare_with, course_of_budget, measure, write_card
from minimind_core.training import budget, pretraining
from minimind_core.training.batches import Row, TooLongError, encode_row

# names that the base must not know: those of the shipped example's people
HELD_BACK = pretraining.names_pattern(Path(__file__).with_name("held_back.txt"))
TOKENIZER_CHARACTERS = 9_000_000  # of the training texts that the tokenizer is made from


def read_all(corpus: Path, copies: int) -> list[pretraining.Document]:
    """The corpus and its copying exercises, in the order of the texts' hashes."""
    documents = list(pretraining.read_corpus(corpus, HELD_BACK))
    documents += pretraining.copy_exercises(documents, copies, seed=1)
    return sorted(documents, key=lambda d: d.key)


def make_tokenizer(documents: list[pretraining.Document], path: Path) -> Tokenizer:
    """The tokenizer of the first TOKENIZER_CHARACTERS, unless the file is there."""
    if not path.exists():
        ends = np.cumsum([len(d.text) for d in documents])
        sample = documents[: 1 + int(np.searchsorted(ends, TOKENIZER_CHARACTERS))]
        with replacing(path) as temporary:
            train_tokenizer((d.text for d in sample), ModelConfig.vocab_size).save(str(temporary))
    return load_tokenizer(path)


def conversation_rows(
    documents: list[pretraining.Document], tokenizer: Tokenizer, longest: int
) -> tuple[list[Row], list[float]]:
    """The dialogues that fit, with loss on their answers, and how often each is drawn."""
    rows, weights = [], []
    for document in documents:
        try:
            if document.turns:
                rows.append(encode_row(Conversation(conversations=document.turns), tokenizer, longest))
                weights.append(document.weight)
        except TooLongError:
            continue
    return rows, weights


def train_base(
    documents: list[pretraining.Document], work: Path, plan: budget.BudgetPlan, device: torch.device
) -> MiniMind:
    """Fill the time budget; leaves tokenizer.json, log.csv and facts.json in the work folder."""
    tokenizer = make_tokenizer(documents, work / "tokenizer.json")
    groups = {}
    for number, name in enumerate(sorted({d.group for d in documents})):
        ids = pretraining.encode_flat([d.text for d in documents if d.group == name], tokenizer)
        if len(ids) > 2 * plan.width:
            groups[name] = budget.PackedGroup(ids, plan.width, number)
    rows, weights = conversation_rows(documents, tokenizer, max(plan.chat_widths))
    chats = budget.ChatRows(rows, weights, plan.chat_widths, seed=2)
    torch.manual_seed(0)
    model = MiniMind(ModelConfig()).to(device)
    with (work / "log.csv").open("w", encoding="utf-8", newline="") as file:
        log = csv.DictWriter(file, ("step", "tokens", "seconds", "stage", "loss", "factor"))
        log.writeheader()
        for record in budget.train_within(model, groups, chats, plan):
            log.writerow(record)
            if record["step"] % 200 == 0:
                print(record, flush=True)
    passes = {name: group.passes for name, group in groups.items()}
    write_json(work / "facts.json", {"device": device_name(device), "passes": passes})
    return model


def device_name(device: torch.device) -> str:
    """What the card calls the machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def write_hashes(documents: list[pretraining.Document], folder: Path) -> None:
    """documents.npz: sorted 64-bit hashes of all documents trained on and of all held out, for the tests."""
    keys = {out: {d.key for d in documents if d.held_out == out} for out in (False, True)}
    trained, held_out = (np.array(sorted(keys[out]), np.uint64) for out in (False, True))
    with replacing(folder / "documents.npz") as temporary:
        np.savez_compressed(temporary, trained=trained, held_out=held_out)


def parse_arguments() -> argparse.Namespace:
    """The command line; a probe has a folder of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/base"))
    parser.add_argument("--out", type=Path, help="default weights/base; for a probe WORK/probe/out")
    parser.add_argument("--probe", action="store_true", help="small steps and few copying exercises")
    parser.add_argument("--seconds", type=float, default=395.0, help="time budget")
    parser.add_argument(
        "--finished", type=Path, help="folder of a finished training: weights, tokenizer, log.csv, facts.json"
    )
    parser.add_argument("--previous", type=Path, help="another base, to be set beside in the card")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu or auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.probe:
        arguments.work /= "probe"
    arguments.out = arguments.out or (arguments.work / "out" if arguments.probe else Path("weights/base"))
    return arguments


def main() -> None:
    """Train, measure, write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    documents = read_all(arguments.corpus, 200 if arguments.probe else 40_000)
    folder = arguments.finished or arguments.work
    if arguments.finished:
        model, _ = load_base(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        plan = budget.BudgetPlan(seconds=arguments.seconds)
        if arguments.probe:
            plan = replace(plan, tokens_per_step=1024)
        trained = [d for d in documents if not d.held_out]
        model = train_base(trained, folder, plan, choose_device(arguments.device)).float().cpu()
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    save_base(model.eval(), tokenizer, arguments.out)
    write_hashes(documents, arguments.out)
    facts = {"stages": course_of_budget(folder), **measure(documents, model, tokenizer)}
    machine = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["device"]
    facts["hardware"] = f"{machine}，bfloat16" if "cpu" not in machine else f"{machine}，{facts['precision']}"
    if arguments.previous:
        facts["previous_bits_per_byte"] = compare_with(arguments.previous, documents)
    write_card(arguments.out, facts)


if __name__ == "__main__":
    main()
