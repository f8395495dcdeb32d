"""The riddles of the log, demonstrated.

A file that is never written, an adapter on another base, losses that seem to oscillate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from minimind_core.config import LoraConfig, TrainConfig, Workbook
from minimind_core.conversations.identity import Identity
from minimind_core.conversations.schema import dialogue
from minimind_core.evaluation.ledger import OUTCOMES
from minimind_core.inference.generation import generate
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.lora import add_lora, load_adapter, lora_state, merge_lora, save_adapter
from minimind_core.training.batches import ConversationBatches, encode_rows
from minimind_core.training.run_files import adapter_file
from minimind_core.training.trainer import train

FORGOTTEN = 0.1  # share by which a loss on everyday talk has to differ to be told; it has no interval


def stock_epoch(workbook: Workbook, steps: int, interval: int = 100) -> dict[str, Any]:
    """Train a stock LoRA for so many steps on one question, with one file that is written every `interval`-th
    step only, as stock MiniMind does.

    Tells whether there is a file at the end, and whether it holds what was learned last.
    """
    model, tokenizer = load_base(workbook.base)
    lora = LoraConfig(rank=8, alpha=8, target_modules=("q_proj", "o_proj"))
    add_lora(model, lora)
    rows = encode_rows([dialogue("你是谁？", Identity(workbook).answer("name"))] * steps, tokenizer)
    config = TrainConfig(learning_rate=1e-4, stock_schedule=True)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "lora.safetensors"
        for record in train(
            model, ConversationBatches(rows, 1, 0, workbook.seed, rows_per_step=1, shuffle=False), config
        ):
            if record.step % interval == 0:
                save_adapter(file, model, lora)
        kept = load_file(file) if file.is_file() else {}
        last = bool(kept) and all(
            torch.equal(kept[name], tensor) for name, tensor in lora_state(model).items()
        )
    return {"一轮的步数": steps, "有文件": bool(kept), "是最后的权重": last}


@torch.no_grad()
def on_another_base(
    workbook: Workbook, name: str, questions: Sequence[str], change: float = 0.4
) -> list[dict[str, str]]:
    """A run's answers on its own base and on one of the same shape whose weights differ by so many standard
    deviations.

    Every tensor fits either, so that nothing fails: this is what MiniMind's --model_mode does when it names
    another base. The last column is that other base alone.
    """
    asked = [[{"role": "user", "content": question}] for question in questions]
    columns = []
    for own, adapted in ((True, True), (False, True), (False, False)):
        model, tokenizer = load_base(workbook.base)
        random = torch.Generator().manual_seed(workbook.seed)
        for parameter in model.parameters():
            if not own and parameter.dim() == 2:
                parameter.add_(
                    torch.randn(parameter.shape, generator=random), alpha=change * parameter.std().item()
                )
        if adapted:
            merge_lora(load_adapter(adapter_file(workbook, name), model))
        columns.append([answer.text for answer in generate(model.eval(), tokenizer, asked)])
    names = ("问题", "自己的基座", "另一个基座", "另一个基座，不装适配器")
    return [dict(zip(names, row, strict=True)) for row in zip(questions, *columns, strict=True)]


def effects(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """One sentence for each step of the ablation, in the order of the names.

    What was changed, the lesson, how the scores moved.
    """
    steps = [result for _, result in sorted(results.items())]
    return [sentence(before, after) for before, after in zip(steps, steps[1:], strict=False)]


def sentence(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What changed between two experiments, in words.

    Scores whose 95 % intervals do not overlap, and losses on everyday talk FORGOTTEN apart.
    """
    pairs = {
        label: (before["scores"][key], after["scores"][key])
        for key, label in OUTCOMES.items()
        if before["scores"][key]["n"] and after["scores"][key]["n"]
    }
    moved = [
        f"{label} {old['share']:.0%} → {new['share']:.0%}"
        for label, (old, new) in pairs.items()
        if max(old["low"], new["low"]) > min(old["high"], new["high"])
    ]
    talk = [result["everyday_loss"] for result in (before, after) if result.get("everyday_loss")]
    if len(talk) == 2 and abs(talk[1] / talk[0] - 1) > FORGOTTEN:
        moved.append(f"日常话的损失 {talk[0]:.2f} → {talk[1]:.2f}")
    minutes = [result["run"]["train_seconds"] / 60 for result in (before, after)]
    told = "：".join(filter(None, (after["about"], after.get("lesson"))))
    return (
        f"{told}（{'，'.join(moved) or '各项的区间都有重叠'}；训练 {minutes[0]:.1f} → {minutes[1]:.1f} 分钟）"
    )
