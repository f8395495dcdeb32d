import csv
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import random_model

from minimind_core.conversations.mixing import write_dataset
from minimind_core.errors import WorkbookError
from minimind_core.training.batches import Batch
from minimind_core.training.tracking import tracking
from minimind_core.training.trainer import StepRecord, batch_loss

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TRAIN = ["minimind_core.cli", "--root"]
# Trains the smoke profile with a checkpoint after every step, slowly enough to be killed anywhere.
DRIVER = """
import dataclasses, sys, time
from pathlib import Path
from minimind_core.config import PROFILES, load_workbook
from minimind_core.training import runs
root, name, resume, pause = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", float(sys.argv[4])
profile = PROFILES["smoke"]
PROFILES["smoke"] = dataclasses.replace(profile, train=dataclasses.replace(profile.train, checkpoint_seconds=0.0), epochs=3)
workbook = load_workbook(root)
resume = resume and (workbook.runs / name / "checkpoint.pt").exists()
for record in runs.prepare_run(workbook, name, "smoke", resume=resume, device="cpu").train():
    time.sleep(pause)
"""


def rows(folder):
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return [(int(r["step"]), float(r["loss"])) for r in csv.DictReader(lines)]


@pytest.mark.slow
def test_two_processes_follow_the_trajectory_of_one(workbook):
    write_dataset(workbook)
    train = [*TRAIN, str(workbook.root), "train", "--profile", "smoke", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", *train, "--run", "one"], check=True, env=ENVIRONMENT)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_addr",
        "127.0.0.1",
        "--master_port",
        "29531",
        "-m",
        "--",
    ]
    subprocess.run([*torchrun, *train, "--run", "two"], check=True, env=ENVIRONMENT)
    one, two = rows(workbook.runs / "one"), rows(workbook.runs / "two")
    assert len(one) == len(two) >= 3
    tolerance = 2e-2 if torch.cpu.get_capabilities().get("avx512_bf16") else 1e-4
    assert all(a[0] == b[0] and abs(a[1] - b[1]) < tolerance for a, b in zip(one, two, strict=True))


APART = """
import os, sys
from itertools import islice
from pathlib import Path
from minimind_core.config import load_workbook
from minimind_core.training.parallel import process_group
from minimind_core.training.runs import prepare_run

root = Path(sys.argv[1 + int(os.environ["RANK"])])
with process_group("cpu"):
    records = prepare_run(load_workbook(root), "apart", "smoke", resume=sys.argv[3] == "resume").train()
    list(islice(records, int(sys.argv[4])))
    records.close()
"""


@pytest.mark.slow
def test_processes_without_a_shared_disk_go_on_from_the_first_ones_checkpoint(workbook, tmp_path_factory):
    write_dataset(workbook)
    other = tmp_path_factory.mktemp("other") / "project"
    shutil.copytree(workbook.root, other)
    train = [*TRAIN, str(workbook.root), "train", "--profile", "smoke", "--device", "cpu", "--run", "whole"]
    subprocess.run([sys.executable, "-m", *train], check=True, env=ENVIRONMENT)
    script = other / "apart.py"
    script.write_text(APART, encoding="utf-8")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_addr",
        "127.0.0.1",
        "--master_port",
        "29533",
    ]
    for mode, steps in (("fresh", "2"), ("resume", "1000")):
        subprocess.run([*torchrun, script, workbook.root, other, mode, steps], check=True, env=ENVIRONMENT)
        assert not (other / "runs").exists()
    whole, apart = rows(workbook.runs / "whole"), rows(workbook.runs / "apart")
    assert len(whole) == len(apart) > 2
    tolerance = 2e-2 if torch.cpu.get_capabilities().get("avx512_bf16") else 1e-4
    assert all(a[0] == b[0] and abs(a[1] - b[1]) < tolerance for a, b in zip(whole, apart, strict=True))


@pytest.mark.slow
def test_a_run_killed_at_random_moments_resumes_to_the_same_adapter(workbook):
    write_dataset(workbook)
    driver = [sys.executable, "-c", DRIVER, str(workbook.root)]
    subprocess.run([*driver, "whole", "False", "0"], check=True, env=ENVIRONMENT)
    folder, rng, kills = workbook.runs / "killed", random.Random(1), 0
    for _ in range(3):
        process = subprocess.Popen([*driver, "killed", "True", "0.03"], env=ENVIRONMENT)
        while process.poll() is None and not (folder / "checkpoint.pt").exists():
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.4))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*driver, "killed", "True", "0"], check=True, env=ENVIRONMENT)
    digests = {
        hashlib.sha256((workbook.runs / name / "adapter.safetensors").read_bytes()).hexdigest()
        for name in ("whole", "killed")
    }
    assert kills >= 1 and len(digests) == 1
    assert [step for step, _ in rows(folder)] == [step for step, _ in rows(workbook.runs / "whole")]


def test_gradients_of_parts_add_up_to_those_of_the_whole():
    model = random_model().requires_grad_(True)
    tokens = torch.randint(3, 60, (5, 7))
    batch = Batch(tokens, tokens.roll(-1, 1))
    batch_loss(model, batch)[0].backward()
    whole = model.model.norm.weight.grad.clone()
    model.zero_grad()
    for rank in range(2):
        batch_loss(model, Batch(batch.tokens[rank::2], batch.labels[rank::2]))[0].backward()
    torch.testing.assert_close(model.model.norm.weight.grad, whole, rtol=2e-2, atol=2e-2)


RECORD = StepRecord(3, 10, 100, 1.5, 1.6, 1.7, 1e-3, 900.0, 12.0)


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking("tensorboard", tmp_path, "p", {"name": "x"}) as log:
        log(RECORD)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("valid_loss")[0].step == 3 and events.Scalars("loss")[0].value == 1.5


def test_wandb_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracking("wandb", tmp_path, "p", {"name": "x"}) as log:
        log(RECORD)
    assert list(tmp_path.rglob("*.wandb"))


def test_a_missing_tracker_is_named_and_none_is_silent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "swanlab", None)
    with (
        pytest.raises(WorkbookError, match="pip install swanlab"),
        tracking("swanlab", tmp_path, "p", {"name": "x"}),
    ):
        pass
    with tracking(None, tmp_path, "p", {}) as log:
        log(RECORD)
    assert not list(tmp_path.iterdir())
