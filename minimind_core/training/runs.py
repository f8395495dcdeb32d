"""The run folder: adapter.safetensors, metrics.csv and run.json, and the one way to train an adapter."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

import minimind_core
from minimind_core.config import PROFILES, Profile, Workbook
from minimind_core.conversations.mixing import dataset_file
from minimind_core.conversations.schema import read_conversations, stream_conversations
from minimind_core.devices import choose_device, fast_bfloat16, lower_frozen
from minimind_core.errors import WorkbookError
from minimind_core.files import write_json, write_text
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.lora import add_lora, load_adapter, lora_parameter_count, merge_lora, save_adapter
from minimind_core.modeling.minimind import MiniMind
from minimind_core.training.batches import ConversationBatches, encode_rows, make_batch
from minimind_core.training.parallel import agreed, check_same, is_first
from minimind_core.training.trainer import StepRecord, train

VALIDATION_ROWS = 128  # rows of the validation file that watch training
FIXED = (
    "base_sha256",
    "data_sha256",
    "lora",
    "train",
    "epochs",
    "tokens_per_step",
)  # settings that all parts of a training share
COLUMNS = tuple(field.name for field in dataclasses.fields(StepRecord))


def run_folder(workbook: Workbook, name: str) -> Path:
    """Folder of a run; names are letters, digits, Chinese, '-', '_' and '.'."""
    if not re.fullmatch(r"[\w\-][\w\-.]*", name):
        raise WorkbookError(f"运行名“{name}”不合适：只能用文字、数字、-、_ 和 .，不能含空格或斜线。")
    return workbook.runs / name


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def base_sha256(base: Path) -> str:
    """Digest of a base's weights, whether a transformers folder or a .pth file."""
    if base.suffix == ".pth":
        return file_sha256(base)
    return file_sha256(
        next(
            (path for name in ("model.safetensors", "pytorch_model.bin") if (path := base / name).is_file()),
            base / "model.safetensors",
        )
    )


def environment() -> dict[str, Any]:
    """Code version and hardware, so that a figure can be traced."""
    commit = ""
    if shutil.which("git"):
        command = ["git", "rev-parse", "HEAD"]
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        commit = result.stdout.strip()
    return {
        "git_commit": commit,
        "minimind_core": minimind_core.__version__,
        "python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


@dataclass
class Watch:
    """Validation losses so far, and whether it is time to stop."""

    losses: list[float]
    patience: int | None

    @property
    def best(self) -> float | None:
        """The lowest loss."""
        return min(self.losses, default=None)

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no new best."""
        return (
            self.patience is not None and len(self.losses) - 1 - self.losses.index(self.best) >= self.patience
            if self.losses
            else False
        )

    def improves(self, loss: float) -> bool:
        """Note a loss; true when it is the lowest."""
        self.losses.append(loss)
        return loss == self.best


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
        """Train, or go on after an interruption, yielding each step; ends with the last and the best adapter
        on disk.

        The best one has the lowest validation loss; with `patience` it is also the last, because training
        stops early.
        """
        if not is_first():
            for record in train(
                self.model,
                self.source,
                self.profile.train,
                validation=self.validation,
                checkpoint=self.checkpoint,
            ):
                yield record
                if record.valid_loss is not None and agreed(False):
                    return
            return
        resumed = self.checkpoint.exists()
        if not resumed:  # an older adapter must not be taken for this run's
            for name in ("adapter.safetensors", "best.safetensors", "metrics.csv", "quiz.csv"):
                (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / "run.json", {**self.settings, "status": "running"})
        previous = read_metrics(self.folder / "metrics.csv") if resumed else []
        watch = Watch([], self.profile.patience)
        record, seconds, finished = None, float(previous[-1]["seconds"] if previous else 0), False
        try:
            for record in train(
                self.model,
                self.source,
                self.profile.train,
                validation=self.validation,
                checkpoint=self.checkpoint,
            ):
                if previous is not None:  # rows after the checkpoint are trained again
                    watch.losses = [
                        float(row["valid_loss"])
                        for row in previous
                        if row["valid_loss"] and int(row["step"]) < record.step
                    ]
                log_step(self.folder / "metrics.csv", record, previous)
                previous, seconds = None, record.seconds
                if record.valid_loss is not None and watch.improves(record.valid_loss):
                    save_adapter(self.folder / "best.safetensors", self.model, self.profile.lora)
                yield record
                if record.valid_loss is not None and agreed(watch.exhausted):
                    break
            finished = True
        finally:
            if record or finished:  # no record: the checkpoint already held the last step
                save_adapter(self.folder / "adapter.safetensors", self.model, self.profile.lora)
                outcome = {
                    "status": "finished" if finished else "interrupted",
                    "train_seconds": seconds,
                    "best_valid_loss": watch.best,
                }
                write_json(self.folder / "run.json", {**self.settings, **outcome})
        if watch.exhausted:
            shutil.copyfile(self.folder / "best.safetensors", self.folder / "adapter.safetensors")
        self.checkpoint.unlink(missing_ok=True)

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
    profile = profile if isinstance(profile, Profile) else PROFILES[profile_name]
    profile = replace(
        profile,
        train=replace(profile.train, seed=workbook.seed),
        lora=replace(profile.lora, seed=workbook.seed),
    )
    data = data or dataset_file(workbook, "train")
    model, tokenizer = load_base(workbook.base)
    lower_frozen(add_lora(model, profile.lora).to(choose_device(device)))
    limit = profile.train_rows or math.inf  # the rest is still checked
    taught = (row for number, row in enumerate(stream_conversations(data)) if number < limit)
    rows = encode_rows(taught, tokenizer, profile.learn_end)
    source = ConversationBatches(
        rows, profile.epochs, profile.tokens_per_step, workbook.seed, profile.rows_per_step, profile.shuffle
    )
    watched = read_conversations(dataset_file(workbook, "qa_valid"))
    step = max(1, len(watched) // VALIDATION_ROWS)
    watched_rows = encode_rows(watched[::step][:VALIDATION_ROWS], tokenizer)
    settings = {
        "name": name, "profile": profile_name, "base": os.path.relpath(workbook.base, workbook.root),
        "base_sha256": base_sha256(workbook.base), "data": os.path.relpath(data, workbook.root),
        "data_sha256": file_sha256(data), "rows": len(rows), "steps": len(source), "seed": workbook.seed,
        "lora": profile.lora.as_dict(), "train": dataclasses.asdict(profile.train), "epochs": profile.epochs,
        "tokens_per_step": profile.tokens_per_step, "trainable_parameters": lora_parameter_count(model),
        "base_parameters": sum(p.numel() for p in model.parameters()) - lora_parameter_count(model),
        "persona": dataclasses.asdict(workbook.persona), "device": str(model.device),
        "precision": "bfloat16" if fast_bfloat16(model.device.type) else "float32", **environment(),
    }  # fmt: skip
    run = Run(workbook, name, profile, model, tokenizer, source, [make_batch(watched_rows, 0)], settings)
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


def check_resumable(run: Run, resume: bool) -> None:
    """Drop an old checkpoint, or refuse to go on from one that was made with other data or settings."""
    if not resume:
        run.checkpoint.unlink(missing_ok=True)
        return
    old = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    changed = [k for k in FIXED if old.get(k) != json.loads(json.dumps(run.settings[k]))]
    if changed:
        raise WorkbookError(
            f"{run.folder}: 与中断前相比 {'、'.join(changed)} 已改变，"
            "不能续训。请去掉 --resume 重新训练，或换一个运行名。"
        )


def log_step(path: Path, record: StepRecord, previous: list[dict[str, str]] | None) -> None:
    """Append a step to metrics.csv; `previous` (given with the first step) are an interrupted run's rows to
    keep.
    """

    def line(row: Mapping[str, Any]) -> str:
        """A row as text; None is an empty cell."""
        return ",".join("" if row[c] is None else str(row[c]) for c in COLUMNS) + "\n"

    if previous is not None:
        kept = [line(row) for row in previous if int(row["step"]) < record.step]
        write_text(path, ",".join(COLUMNS) + "\n" + "".join(kept))
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line(dataclasses.asdict(record)))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv; none if the file is not there, and a line that a power cut broke off is left
    out.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if None not in row.values()]


def load_run(workbook: Workbook, name: str, device: str = "auto") -> tuple[MiniMind, Tokenizer]:
    """The model of a run, adapter merged, ready for answers; the name `base` is the base model alone."""
    model, tokenizer = load_base(workbook.base)
    if name != "base":
        merge_lora(load_adapter(adapter_file(workbook, name), model))
    model.requires_grad_(False).eval()
    return lower_frozen(model.to(choose_device(device))), tokenizer


def trained_runs(workbook: Workbook) -> list[str]:
    """Names of all runs that have an adapter."""
    return sorted(path.parent.name for path in workbook.runs.glob("*/adapter.safetensors"))


def adapter_file(workbook: Workbook, name: str) -> Path:
    """The adapter of a run that was trained on the workbook's base."""
    folder = run_folder(workbook, name)
    if not (folder / "adapter.safetensors").is_file():
        known = "、".join(["base", *trained_runs(workbook)])
        raise WorkbookError(
            f"没有名为“{name}”的训练结果。现有：{known}。请先运行 minimind train --run {name}。"
        )
    settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if settings["base_sha256"] != base_sha256(workbook.base):
        raise WorkbookError(
            f"{folder}: 这个适配器是在另一个基座上训练的。请把 workbook.toml "
            f"的 base 改回 {settings['base']}，或重新训练。"
        )
    return folder / "adapter.safetensors"
