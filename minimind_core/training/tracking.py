"""Copies of metrics.csv's rows in TensorBoard, Weights & Biases or SwanLab, when a run asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError
from minimind_core.training.trainer import StepRecord

Log = Callable[[StepRecord], None]


def values(record: StepRecord) -> dict[str, float]:
    """The numbers of a record."""
    return {
        name: value
        for name, value in asdict(record).items()
        if value is not None and name not in ("step", "total_steps")
    }


@contextmanager
def tracking(name: str | None, folder: Path, project: str, settings: dict[str, Any]) -> Iterator[Log]:
    """Open a tracker for one run and close it afterwards; without a name nothing is logged.

    wandb and SwanLab go online only when the user has logged in; WANDB_MODE=offline and SWANLAB_MODE=local
    keep all in `folder`.
    """
    if name is None:
        yield lambda record: None
        return
    try:
        module = import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ModuleNotFoundError as error:
        raise WorkbookError(
            f"记录到 {name} 需要先安装它：pip install {name}。不安装时 metrics.csv 照样会写。"
        ) from error
    if name == "tensorboard":
        with module.SummaryWriter(folder / "tensorboard") as writer:

            def log(record: StepRecord) -> None:
                for key, value in values(record).items():
                    writer.add_scalar(key, value, record.step)

            yield log
        return
    keys = {
        "wandb": {"dir": str(folder), "name": settings["name"]},
        "swanlab": {"logdir": str(folder / "swanlab"), "experiment_name": settings["name"]},
    }
    run = module.init(project=project, config=settings, **keys[name])
    try:
        yield lambda record: run.log(values(record), step=record.step)
    finally:
        run.finish()
