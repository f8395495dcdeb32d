"""Named experiments: settings are checked, results are kept by content, and a matrix survives lost
workers.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from conftest import PROJECT, random_model

from minimind_core.cli import main
from minimind_core.config import PROFILES, Mix
from minimind_core.conversations.schema import dialogue
from minimind_core.errors import WorkbookError
from minimind_core.experiments import matrix, results, runner
from minimind_core.experiments.results import content_hash, finished, result_file
from minimind_core.experiments.runner import perform, thinned
from minimind_core.experiments.settings import Experiment, load_experiments, resolve, sized
from minimind_core.modeling.checkpoint import save_base

TINY = Experiment(
    "tiny",
    "own",
    "试一试",
    profile={"epochs": 1, "tokens_per_step": 256, "train_rows": 24},
    lora={"rank": 2, "first_layer": 0},
    questions=3,
)


def test_every_shipped_experiment_is_complete():
    found = load_experiments()
    assert {f"run{i:02}" for i in range(1, 11)} | {"data5"} <= {
        e.name for e in found.values() if e.group == "log"
    }
    assert all(e.about for e in found.values())
    logged = json.loads((PROJECT / "report" / "original_runs.json").read_text(encoding="utf-8"))["runs"]
    for run in logged[:10]:
        experiment = found[f"run{run['run']:02}"]
        profile = resolve(experiment).profile
        assert profile.epochs == run["epochs"] and profile.train.learning_rate == run["learning_rate"], run[
            "run"
        ]
        assert experiment.recipe == run["recipe"] and not profile.shuffle
        assert (
            profile.lora.target_modules == ("q_proj", "o_proj")
            and profile.lora.rank == 8
            and profile.lora.first_layer == 0
        )
        assert resolve(sized(experiment, "full")).profile.rows_per_step == 32


def test_a_members_table_lies_over_its_groups_defaults(tmp_path):
    path = tmp_path / "experiments.toml"
    path.write_text(
        """
[mine.defaults]
train = { learning_rate = 1e-3, warmup = 0.02 }
[mine.a]
about = "甲"
train = { learning_rate = 2e-3 }
lora = { target_modules = ["q_proj"] }
""",
        encoding="utf-8",
    )
    own = load_experiments(path)["a"]
    profile = resolve(own).profile
    assert (profile.train.learning_rate, profile.train.warmup, profile.lora.target_modules) == (
        2e-3,
        0.02,
        ("q_proj",),
    )
    assert profile.epochs == PROFILES["default"].epochs


@pytest.mark.parametrize("line", ["trian = {}", "train = { learning_rat = 1.0 }", "lora = { rank = 0 }"])
def test_an_unknown_or_unfit_setting_is_refused(tmp_path, line):
    path = tmp_path / "experiments.toml"
    path.write_text(f'[mine.a]\nabout = "甲"\n{line}\n', encoding="utf-8")
    with pytest.raises(WorkbookError, match=r"\[a\]"):
        load_experiments(path)


def test_thinning_keeps_whole_subjects(workbook):
    facts = runner.read_facts(workbook.facts)
    kept = thinned(facts, 2)
    assert 0 < len(kept) < len(facts)
    assert all((fact in kept) == (fact.subject in {f.subject for f in kept}) for fact in facts)


def test_only_identity_is_thinned_with_the_subjects():
    rows = [dialogue(f"问{i}", "答", kind="identity" if i % 2 else "fact") for i in range(20)]
    kept = runner.thinned_identity(rows, 5)
    assert [r for r in kept if r.meta["kind"] == "fact"] == rows[::2] and len(kept) == 12


def test_what_decides_a_result_changes_its_hash(workbook):
    before = content_hash(workbook, TINY)
    for changes in (
        {"draws": {"ask": 3}},
        {"check": True},
        {"split": "test"},
        {"every": 2},
        {"decoding": {"top_p": 0.5}},
    ):
        assert content_hash(workbook, replace(TINY, **changes)) != before
    (workbook.dataset / "questions" / "valid.jsonl").write_text(
        '{"suite": "everyday", "turns": ["早"]}', encoding="utf-8"
    )
    assert content_hash(workbook, TINY) != before


def test_results_on_another_base_are_left_out(workbook, tokenizer):
    perform(workbook, TINY)
    assert list(results.load_experiment_results(workbook)) == ["tiny"]
    save_base(random_model(seed=9), tokenizer, workbook.base)
    assert results.load_experiment_results(workbook) == {}


def test_a_result_is_kept_until_something_it_depends_on_changes(workbook):
    result = perform(workbook, TINY)
    assert finished(workbook, TINY) == json.loads(result_file(workbook, "tiny").read_text(encoding="utf-8"))
    assert set(result["scores"]) >= {"identity", "seen", "unknown", "ended"}
    assert not finished(workbook, replace(TINY, lora={"rank": 3, "first_layer": 0}))
    assert content_hash(workbook, replace(TINY, seed=43)) == content_hash(replace(workbook, seed=43), TINY)
    assert not finished(replace(workbook, seed=43), TINY) and not finished(
        replace(workbook, mix=Mix(identity=2)), TINY
    )
    before = content_hash(workbook, TINY)
    with workbook.facts.open("a", encoding="utf-8") as file:
        file.write("王力宏,出生日期,1976年5月17日,https://example.org/e,2026-01-01\n")
    assert content_hash(workbook, TINY) != before
    assert content_hash(workbook, replace(TINY, about="换一句说明")) == content_hash(workbook, TINY)


def test_a_log_recipe_is_asked_what_it_was_taught(workbook):
    (workbook.root / "dataset" / "kdconv_sample.json").write_text(
        (PROJECT / "dataset" / "kdconv_sample.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    result = perform(workbook, replace(TINY, recipe="music_data2", kdconv=True))
    assert result["scores"]["seen"]["n"] > 0
    assert all(len(a["answer"]) <= 40 for a in result["answers"])


def write_tiny(workbook, count):
    text = "".join(f"""
[own.t{i}]
about = "第 {i} 项"
questions = 3
profile = {{ epochs = 1, tokens_per_step = 256, train_rows = 24 }}
lora = {{ rank = {i + 1}, first_layer = 0 }}
""" for i in range(count))  # fmt: skip
    (workbook.root / "experiments.toml").write_text(text, encoding="utf-8")
    return [e for e in load_experiments(workbook.root / "experiments.toml").values() if e.group == "own"]


@pytest.mark.slow
def test_a_matrix_runs_in_processes_and_only_what_is_missing_runs_again(workbook, capsys):
    write_tiny(workbook, 3)
    command = ["--root", str(workbook.root), "experiments", "own", "--jobs", "2"]
    assert main(command) == 0 and "共 3 项，失败 0 项" in capsys.readouterr().out
    stamps = {i: (workbook.runs / f"t{i}" / "metrics.csv").stat().st_mtime_ns for i in range(3)}
    result_file(workbook, "t1").unlink()
    assert main(command) == 0
    assert {
        i for i in range(3) if (workbook.runs / f"t{i}" / "metrics.csv").stat().st_mtime_ns != stamps[i]
    } == {1}
    assert main(["--root", str(workbook.root), "experiments"]) == 0 and "✓ own" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_matrix_leaves_no_process_at_work(workbook):
    write_tiny(workbook, 1)
    text = (workbook.root / "experiments.toml").read_text(encoding="utf-8")
    (workbook.root / "experiments.toml").write_text(
        text.replace("epochs = 1", "epochs = 10000"), encoding="utf-8"
    )
    command = [sys.executable, "-m", "minimind_core.cli", "--root", str(workbook.root), "experiments", "own"]
    matrix_process = subprocess.Popen(command, cwd=PROJECT)
    deadline = time.monotonic() + 120
    while not (log := workbook.runs / "t0" / "metrics.csv").is_file():
        assert matrix_process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    matrix_process.kill()
    matrix_process.wait()
    sizes = [None, log.stat().st_size]
    while sizes[-1] != sizes[-2]:  # it may still write for a moment
        assert time.monotonic() < deadline
        time.sleep(3)
        sizes.append(log.stat().st_size)


def test_an_unknown_experiment_is_named(workbook, capsys):
    assert main(["--root", str(workbook.root), "experiments", "run99"]) == 2
    assert "run99" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cluster_finishes_everything_though_a_worker_is_killed(workbook):
    distributed = pytest.importorskip("distributed")
    chosen = write_tiny(workbook, 4)
    killed, completed, over = [], set(), threading.Event()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        pids = [worker.pid for worker in cluster.workers.values()]

        def kill_a_busy_one():
            while not over.wait(0.05):
                if list(workbook.runs.glob("t*/run.json")):  # both are at work by now
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(pids[0])
                    return

        def watch():
            while not over.wait(0.02):
                for i in range(4):
                    with contextlib.suppress(FileNotFoundError):
                        completed.add((i, result_file(workbook, f"t{i}").stat().st_mtime_ns))

        threads = [threading.Thread(target=target) for target in (kill_a_busy_one, watch)]
        for thread in threads:
            thread.start()
        outcomes = dict(matrix.perform_all(workbook, chosen, scheduler=cluster.scheduler_address))
        time.sleep(0.1)
        over.set()
        for thread in threads:
            thread.join()
    assert killed and [i for i, _ in sorted(completed)] == [0, 1, 2, 3]  # nothing was run twice to the end
    assert outcomes == {f"t{i}": "" for i in range(4)}
    assert all(finished(workbook, experiment) for experiment in chosen)
