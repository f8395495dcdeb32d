"""Answering side by side: transformers' generate and this workbook, one by one and in batches of 128.

    python benchmarks/generation.py [--questions 1024] [--run main]

Both answer the same test questions with the same trained run, greedily, without a penalty, until the answer
ends; the claim check is on. Writes report/results/benchmark_generation.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from minimind_core.config import Workbook, load_workbook
from minimind_core.devices import fast_bfloat16
from minimind_core.evaluation.suites import load_suites
from minimind_core.files import write_json
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.modeling.exporting import export
from minimind_core.training.run_files import load_source

# tokens at most, questions before the clock starts, questions one by one, questions in a batch
NEW, WARM, FEW, BATCH = (64, 4, 64, 128)
Answers = Callable[[Sequence[str], int], list[str]]


def transformers_answers(workbook: Workbook, run: str, folder: Path) -> Answers:
    """Answers of AutoModelForCausalLM.generate, `batch` at a time, by the run exported to a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export("hf", load_source(workbook, run), folder)
    dtype = torch.bfloat16 if fast_bfloat16("cpu") else torch.float32
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        AutoTokenizer.from_pretrained(folder, padding_side="left"),
    )

    def answers(questions: Sequence[str], batch: int) -> list[str]:
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": q}], add_generation_prompt=True, tokenize=False
            )
            for q in questions
        ]
        written: list[str] = []
        for start in range(0, len(prompts), batch):
            inputs = tokenizer(
                prompts[start : start + batch], return_tensors="pt", padding=True, return_token_type_ids=False
            )
            ids = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
            written += tokenizer.batch_decode(
                ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
        return [text.strip() for text in written]

    return answers


def our_answers(workbook: Workbook, run: str) -> Answers:
    """Answers of the Assistant, one by one or all together."""
    assistant = Assistant.load(workbook, run, Decoding(max_new_tokens=NEW), device="cpu")

    def answers(questions: Sequence[str], batch: int) -> list[str]:
        dialogues = [[{"role": "user", "content": question}] for question in questions]
        parts = [dialogues[i : i + batch] for i in range(0, len(dialogues), batch)]
        return [answer.own or answer.text for part in parts for answer in assistant.answer_all(part)]

    return answers


def main() -> None:
    """Measure all contenders in one process, one after the other."""
    parser = argparse.ArgumentParser(description="generation speed side by side")
    parser.add_argument("--questions", type=int, default=1024)
    parser.add_argument("--run", default="main")
    arguments = parser.parse_args()
    workbook = load_workbook()
    rows = [
        q.turns[0]
        for suite in load_suites(workbook, split="valid").values()
        for q in suite
        if len(q.turns) == 1
    ]
    questions = rows[:: max(1, len(rows) // arguments.questions)][: arguments.questions]
    found: dict = {"questions": len(questions), "one_by_one": FEW, "batch": BATCH, "run": arguments.run}
    texts: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        contenders = {
            "transformers": transformers_answers(workbook, arguments.run, Path(folder)),
            "ours": our_answers(workbook, arguments.run),
        }
        for batch, asked in ((1, questions[:FEW]), (BATCH, questions)):
            for name, answers in contenders.items():
                answers(questions[-WARM:] if batch == 1 else questions[-BATCH:], batch)
                started = time.perf_counter()
                texts[name] = answers(asked, batch)
                found[f"{name}_batch_{batch}"] = (time.perf_counter() - started) / len(asked)
            found[f"same_answers_batch_{batch}"] = sum(
                a == b for a, b in zip(texts["transformers"], texts["ours"], strict=True)
            ) / len(asked)
    alone = found["transformers_batch_1"]
    found["single_stream_ratio"] = alone / found["ours_batch_1"]
    found["batched_over_transformers_one_by_one"] = alone / found[f"ours_batch_{BATCH}"]
    found["batched_over_transformers_batched"] = (
        found[f"transformers_batch_{BATCH}"] / found[f"ours_batch_{BATCH}"]
    )
    write_json(workbook.results / "benchmark_generation.json", found)
    print(found)


if __name__ == "__main__":
    main()
