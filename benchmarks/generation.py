"""Answering side by side: transformers' generate one by one and in batches of 64, and this workbook; writes report/results/benchmark_generation.json.

python benchmarks/generation.py [--questions 128]
"""

from __future__ import annotations

import argparse
import time

import torch

from minimind_core.config import load_workbook
from minimind_core.conversations.schema import read_conversations
from minimind_core.devices import fast_bfloat16, lower_frozen
from minimind_core.evaluation.generation import Decoding, generate
from minimind_core.files import write_json
from minimind_core.modeling.checkpoint import load_base

NEW = 24  # tokens of every answer, so that all contenders write the same amount


def transformers_seconds(questions: list[str], batch: int) -> float:
    """Greedy answers of exactly NEW tokens by AutoModelForCausalLM.generate."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = str(load_workbook().base)
    dtype = torch.bfloat16 if fast_bfloat16("cpu") else torch.float32
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base, dtype=dtype), AutoTokenizer.from_pretrained(base, padding_side="left")
    prompts = [tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True, tokenize=False) for q in questions]
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "repetition_penalty": 1.3}
    started = time.perf_counter()
    for start in range(0, len(prompts), batch):
        model.generate(**tokenizer(prompts[start : start + batch], return_tensors="pt", padding=True, return_token_type_ids=False), **settings)
    return time.perf_counter() - started


def our_seconds(questions: list[str], batch: int) -> float:
    """Greedy answers of exactly NEW tokens: the end token is made impossible by an embedding row of zeros and a shift."""
    model, tokenizer = load_base(load_workbook().base)
    lower_frozen(model.requires_grad_(False))
    with torch.no_grad():
        model.model.embed_tokens.weight[2] = 0  # its logit is 0, below the winner's
    dialogues = [[{"role": "user", "content": q}] for q in questions]
    started = time.perf_counter()
    answers = generate(model, tokenizer, dialogues, Decoding(max_new_tokens=NEW), batch_size=batch)
    seconds = time.perf_counter() - started
    assert sum(a.new_tokens for a in answers) > 0.95 * NEW * len(answers)
    return seconds


def main() -> None:
    """Measure in one process, alternating."""
    parser = argparse.ArgumentParser(description="generation speed side by side")
    parser.add_argument("--questions", type=int, default=128)
    arguments = parser.parse_args()
    questions = [row.question for row in read_conversations(load_workbook().dataset / "music_qa_test.jsonl")[:: 4051 // arguments.questions]][
        : arguments.questions
    ]
    few = questions[:16]
    with torch.no_grad():
        found = {"questions": len(questions), "new_tokens": NEW}
        for name, seconds in (("transformers", transformers_seconds), ("ours", our_seconds)):
            found[f"{name}_one_by_one"] = seconds(few, 1) / len(few)
            found[f"{name}_batch_64"] = seconds(questions, 64) / len(questions)
    found["single_stream_ratio"] = found["transformers_one_by_one"] / found["ours_one_by_one"]
    found["batched_over_transformers_one_by_one"] = found["transformers_one_by_one"] / found["ours_batch_64"]
    found["batched_over_transformers_batched"] = found["transformers_batch_64"] / found["ours_batch_64"]
    write_json(load_workbook().results / "benchmark_generation.json", found)
    print(found)


if __name__ == "__main__":
    main()
