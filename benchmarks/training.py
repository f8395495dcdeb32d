"""LoRA training side by side in one run.

MiniMind's stock recipe, TRL with PEFT (packed, bf16), and this workbook.

    python benchmarks/training.py [--seconds 30]

Every contender trains on the same rows in a process of its own; speed is counted in useful (non-padding)
tokens. (a) is our own network in the stock settings (float32, rows padded to 512, file order, q and o, rank
8), because MiniMind's trainer needs its own files; (b) needs `pip install trl datasets peft`. Runs where
training would (CUDA, MPS or the CPU). Writes report/results/benchmark_training.json, on a GPU
benchmark_training_cuda.json or _mps.json, with the time of the whole default training.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F

from minimind_core.config import PROFILES, STOCK_LORA, LoraConfig, load_workbook
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.devices import choose_device, fast_bfloat16
from minimind_core.files import write_json
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.fast import lower_frozen
from minimind_core.modeling.lora import add_lora
from minimind_core.training.batches import ConversationBatches, encode_rows, make_batch
from minimind_core.training.trainer import train

DEVICE = choose_device()
ROWS, PADDED, STOCK_BATCH, PACKED, PACKS = 2048, 512, 32, 1024, 4


def rows(most: int | None = ROWS) -> list[Conversation]:
    """The first rows of the training file, or all."""
    return read_conversations(load_workbook().dataset / "train.jsonl")[:most]


def stock() -> Iterator[int]:
    """(a): every row padded to 512, all logits, float32; yields useful tokens."""
    model, tokenizer = load_base(load_workbook().base)
    add_lora(model, STOCK_LORA).to(DEVICE)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    encoded = encode_rows(rows(), tokenizer)
    for start in range(0, len(encoded) - STOCK_BATCH + 1, STOCK_BATCH):
        batch = make_batch(encoded[start : start + STOCK_BATCH], 0)
        room = PADDED - batch.tokens.shape[1]
        tokens, labels = (
            F.pad(batch.tokens, (0, room)).to(DEVICE),
            F.pad(batch.labels, (0, room), value=-100).to(DEVICE),
        )
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        yield int((batch.tokens != 0).sum())


def ours(
    lora: LoraConfig,
    tokens_per_step: int = PROFILES["default"].tokens_per_step,
    most: int | None = ROWS,
    epochs: int = 20,
) -> Iterator[int]:
    """(c): this workbook's trainer as `minimind train` runs it."""
    model, tokenizer = load_base(load_workbook().base)
    lower_frozen(add_lora(model, lora).to(DEVICE))
    profile = PROFILES["default"]
    source = ConversationBatches(encode_rows(rows(most), tokenizer), epochs, tokens_per_step, 42)
    # the shared beginning counts for every row, as for the others
    whole = [sum(len(source.rows[i].ids) for i in step) for step in source.steps]
    for record in train(model, source, replace(profile.train, validate_every=10**9)):
        yield whole[record.step - 1]


def trl() -> Iterator[int]:
    """(b): SFTTrainer, packed rows of 1024, bf16 where the processor has it, PEFT on q and o, rank 8."""
    from datasets import Dataset
    from peft import LoraConfig as PeftConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    base, steps = str(load_workbook().base), []
    bf16 = fast_bfloat16(DEVICE.type)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            steps.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16 if bf16 else torch.float32),
            processing_class=AutoTokenizer.from_pretrained(base),
            train_dataset=Dataset.from_list([{"messages": row.messages} for row in rows()]),
            peft_config=PeftConfig(
                r=8, lora_alpha=8, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM"
            ),
            args=SFTConfig(
                output_dir=folder, per_device_train_batch_size=PACKS, max_length=PACKED, packing=True,
                max_steps=SECONDS_STEPS,
                bf16=bf16, use_cpu=DEVICE.type == "cpu", report_to=[], logging_steps=10**6,
                save_strategy="no",
                learning_rate=1e-4, disable_tqdm=True, gradient_checkpointing=False,
            ),
            callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    for _ in steps:
        yield PACKS * PACKED
    TRL_TIMES.extend(steps)


SECONDS_STEPS, TRL_TIMES = 6, []
CONTENDERS = {
    "stock": stock, "trl_packed": trl, "ours_q_o_rank8": lambda: ours(STOCK_LORA),
    "ours_q_o_rank8_trl_steps": lambda: ours(STOCK_LORA, PACKS * PACKED),
    "ours_default": lambda: ours(PROFILES["default"].lora),
}  # fmt: skip
if DEVICE.type != "cpu":  # the whole default training, which takes minutes on a CPU
    CONTENDERS["ours_default_whole"] = lambda: ours(
        PROFILES["default"].lora, most=None, epochs=PROFILES["default"].epochs
    )


def matmul_rate() -> float:
    """Multiply-adds of large matrices this process manages, in GFLOP/s, in the precision that training
    uses.
    """
    dtype = torch.bfloat16 if fast_bfloat16(DEVICE.type) else torch.float32
    a, b = (torch.randn(2048, 2048, dtype=dtype, device=DEVICE) for _ in range(2))
    (a @ b)[0, 0].item()
    started = time.perf_counter()
    for _ in range(8):
        c = a @ b
    c[0, 0].item()  # waits for the device
    return 8 * 2 * 2048**3 / (time.perf_counter() - started) / 1e9


def measure(name: str, seconds: float) -> dict:
    """Tokens per second of one contender after its first step, and its peak memory."""
    tokens, started, steps = 0, 0.0, 0
    for useful in CONTENDERS[name]():
        if started:
            tokens, steps = tokens + useful, steps + 1
        started = started or time.perf_counter()
        if time.perf_counter() - started > seconds and name != "ours_default_whole":
            break
    elapsed = time.perf_counter() - started
    if TRL_TIMES:
        elapsed, steps = TRL_TIMES[-1] - TRL_TIMES[0], len(TRL_TIMES) - 1
        tokens = steps * PACKS * PACKED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"tokens_per_second": tokens / elapsed, "steps": steps, "seconds": elapsed, "peak_mib": peak}
    return found | (
        {"device_peak_mib": torch.cuda.max_memory_allocated() / 2**20} if DEVICE.type == "cuda" else {}
    )


def main() -> None:
    """Measure all contenders, one after the other."""
    parser = argparse.ArgumentParser(description="training speed side by side")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", choices=CONTENDERS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.seconds)))
        return
    found: dict = {"matmul_gflops": matmul_rate(), "rows": ROWS}
    for name in CONTENDERS:
        command = [sys.executable, __file__, "--only", name, "--seconds", str(arguments.seconds)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        found[name] = (
            json.loads(result.stdout.splitlines()[-1])
            if result.returncode == 0
            else {"failed": result.stderr[-300:]}
        )
        print(name, found[name], flush=True)

    def speed(name: str) -> float:
        return found[name].get("tokens_per_second", float("nan"))

    found["ours_q_o_over_stock"] = speed("ours_q_o_rank8") / speed("stock")
    found["ours_q_o_over_trl_packed"] = speed("ours_q_o_rank8") / speed("trl_packed")
    found["ours_q_o_over_trl_packed_same_steps"] = speed("ours_q_o_rank8_trl_steps") / speed("trl_packed")
    found["ours_default_share_of_matmul"] = (
        speed("ours_default") * 4 * 25_829_888 / found["matmul_gflops"] / 1e9
    )
    # README quotes the CPU's
    name = "benchmark_training" + ("" if DEVICE.type == "cpu" else f"_{DEVICE.type}")
    write_json(load_workbook().results / f"{name}.json", found)


if __name__ == "__main__":
    main()
