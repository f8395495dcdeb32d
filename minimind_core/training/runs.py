"""The run folder: adapter.safetensors, metrics.csv and run.json, and the one way to train an adapter."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from minimind_core.config import PROFILES, Profile, Workbook
from minimind_core.conversations.importing import training_rows
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import Conversation, read_conversations
from minimind_core.devices import choose_device, fast_bfloat16
from minimind_core.errors import WorkbookError
from minimind_core.files import write_json
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.fast import lower_frozen
from minimind_core.modeling.lora import add_lora, load_adapter, lora_parameter_count, merge_lora, save_adapter
from minimind_core.modeling.minimind import MiniMind
from minimind_core.training.batches import (
    Batch,
    ConversationBatches,
    Row,
    TooLongError,
    encode_rows,
    make_batch,
)
from minimind_core.training.parallel import check_same, is_first
from minimind_core.training.run_files import (
    adapter_file,
    base_sha256,
    environment,
    file_sha256,
    log_step,
    read_metrics,
    read_run,
    run_folder,
)
from minimind_core.training.trainer import StepRecord, train

VALIDATION_ROWS = 128  # rows of the validation file that watch training
# settings that all parts of a training share
FIXED = ("base_sha256", "data_sha256", "lora", "train", "epochs", "tokens_per_step")


@dataclass
class Run:
    """A training run that can be started, watched and resumed."""

    workbook: Workbook
    name: str
    profile: Profile
    model: MiniMind
    tokenizer: Tokenizer
    source: ConversationBatches
    validation: list
    settings: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return run_folder(self.workbook, self.name)

    def train(self) -> Iterator[StepRecord]:
        """Train, or go on after an interruption, yielding each step; the first process writes the folder."""
        if not is_first():
            yield from self.steps()
            return
        previous, record, finished = self.begin(), None, False
        seconds = float(previous[-1]["seconds"]) if previous else 0.0
        try:
            for record in self.steps():
                log_step(self.folder / "metrics.csv", record, previous)
                previous, seconds = None, record.seconds
                yield record
            finished = True
        finally:
            if record or finished:  # no record: the checkpoint already held the last step
                self.save(finished, seconds)
        self.checkpoint.unlink(missing_ok=True)

    def steps(self) -> Iterator[StepRecord]:
        """The steps that are still to be taken."""
        return train(
            self.model,
            self.source,
            self.profile.train,
            validation=self.validation,
            checkpoint=self.checkpoint,
        )

    def begin(self) -> list[dict[str, str]]:
        """Write run.json; returns the metrics of an interrupted run, or removes what an older run left."""
        resumed = self.checkpoint.exists()
        if not resumed:  # an older adapter must not be taken for this run's
            for name in ("adapter.safetensors", "metrics.csv", "quiz.csv"):
                (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / "run.json", {**self.settings, "status": "running"})
        return read_metrics(self.folder / "metrics.csv") if resumed else []

    def save(self, finished: bool, seconds: float) -> None:
        """Write the adapter as it is now, and how training ended."""
        save_adapter(self.folder / "adapter.safetensors", self.model, self.profile.lora)
        status = "finished" if finished else "interrupted"
        outcome = {"status": status, "train_seconds": seconds}
        write_json(self.folder / "run.json", {**self.settings, **outcome})

    @property
    def checkpoint(self) -> Path:
        """State for resuming; removed when the run has finished."""
        return self.folder / "checkpoint.pt"


def prepare_run(
    workbook: Workbook,
    name: str,
    profile: str | Profile | None = None,
    *,
    resume: bool = False,
    data: Path | None = None,
    device: str = "auto",
) -> Run:
    """Load base and data and add the adapter; with `resume` the checkpoint of an interrupted run is kept."""
    run_folder(workbook, name)  # refuses an unusable name before anything is loaded
    if name in ("base", "lookup", "rules"):
        raise WorkbookError(f"运行名 {name} 另有用处。请换一个运行名。")
    profile_name = "custom" if isinstance(profile, Profile) else profile or workbook.profile
    where = choose_device(device)
    if not isinstance(profile, Profile):
        profile = PROFILES[profile_name].on(where.type)
    profile = seeded(profile, workbook.seed)
    data = data or dataset_file(workbook, "train")
    model, tokenizer = load_base(workbook.base)
    lower_frozen(add_lora(model, profile.lora).to(where))
    rows = read_rows(data, tokenizer, profile, print if is_first() else lambda line: None)
    source = ConversationBatches(
        rows, profile.epochs, profile.tokens_per_step, workbook.seed, profile.rows_per_step, profile.shuffle
    )
    settings = {
        "name": name, "profile": profile_name, "base": os.path.relpath(workbook.base, workbook.root),
        "data": os.path.relpath(data, workbook.root), "data_sha256": file_sha256(data),
        "rows": len(rows), "steps": len(source), **run_settings(workbook, profile, model),
    }  # fmt: skip
    watched = [validation_batch(workbook, tokenizer)]
    run = Run(workbook, name, profile, model, tokenizer, source, watched, settings)
    check_same({key: settings[key] for key in FIXED})
    if not is_first():
        return run
    if run.checkpoint.exists():
        check_resumable(run, resume)
    elif resume:
        raise WorkbookError(
            f"{run.folder}: 没有中断的训练可以继续（已训练完，或运行名不对）。要重新训练请去掉 --resume。"
        )
    return run


def read_rows(data: Path, tokenizer: Tokenizer, profile: Profile, tell: Callable[[str], None]) -> list[Row]:
    """The encoded rows of a training file.

    A file in a foreign format and rows that lose turns are told; one that does not fit at all is refused.
    """
    limit = profile.train_rows or math.inf  # the rest is still checked
    lines = array("i")

    def taught() -> Iterator[Conversation]:
        for line, row in training_rows(data, tell):
            if len(lines) < limit:
                lines.append(line)
                yield row

    try:
        rows = encode_rows(taught(), tokenizer, profile.learn_end)
    except TooLongError as error:
        remedy = f"请缩短或拆开；minimind doctor {data} 列出全部太长的行。"
        raise WorkbookError(f"{data}:{lines[-1]}: {error}。{remedy}") from error
    cut = [str(line) for line, row in zip(lines, rows, strict=True) if row.left_out]
    if cut:
        more = " …" if cut[10:] else ""
        tell(f"{data}: {len(cut)} 段对话太长，只教前几轮：第 {'、'.join(cut[:10])}{more} 行。")
    return rows


def seeded(profile: Profile, seed: int) -> Profile:
    """The profile with the workbook's seed for training and adapter."""
    return replace(profile, train=replace(profile.train, seed=seed), lora=replace(profile.lora, seed=seed))


def validation_batch(workbook: Workbook, tokenizer: Tokenizer) -> Batch:
    """Rows of the validation file, evenly spaced, that watch training."""
    rows = read_conversations(dataset_file(workbook, "qa_valid"))
    step = max(1, len(rows) // VALIDATION_ROWS)
    return make_batch(encode_rows(rows[::step][:VALIDATION_ROWS], tokenizer), 0)


def run_settings(workbook: Workbook, profile: Profile, model: MiniMind) -> dict[str, Any]:
    """What run.json tells of a run besides its data."""
    trained = lora_parameter_count(model)
    return {
        "base_sha256": base_sha256(workbook.base), "seed": workbook.seed,
        "lora": dataclasses.asdict(profile.lora), "train": dataclasses.asdict(profile.train),
        "epochs": profile.epochs,
        "tokens_per_step": profile.tokens_per_step, "trainable_parameters": trained,
        "base_parameters": sum(p.numel() for p in model.parameters()) - trained,
        "persona": dataclasses.asdict(workbook.persona), "device": str(model.device),
        "precision": "bfloat16" if fast_bfloat16(model.device.type) else "float32", **environment(),
    }  # fmt: skip


def check_resumable(run: Run, resume: bool) -> None:
    """Drop an old checkpoint, or refuse to go on from one that was made with other data or settings."""
    if not resume:
        run.checkpoint.unlink(missing_ok=True)
        return
    old = read_run(run.folder)
    changed = [k for k in FIXED if old.get(k) != json.loads(json.dumps(run.settings[k]))]
    if changed:
        raise WorkbookError(
            f"{run.folder}: 与中断前相比 {'、'.join(changed)} 已改变，"
            "不能续训。请去掉 --resume 重新训练，或换一个运行名。"
        )


def load_model(base: Path, adapter: Path | None, device: str = "auto") -> tuple[MiniMind, Tokenizer]:
    """A base with an adapter merged into it, ready for answers."""
    model, tokenizer = load_base(base)
    if adapter:
        merge_lora(load_adapter(adapter, model))
    model.requires_grad_(False).eval()
    return lower_frozen(model.to(choose_device(device))), tokenizer


def load_run(workbook: Workbook, name: str, device: str = "auto") -> tuple[MiniMind, Tokenizer]:
    """The model of a run, ready for answers; the name `base` is the base model alone."""
    return load_model(workbook.base, adapter_file(workbook, name), device)
