"""Many experiments: in parallel processes here, or on a Dask cluster that shares the project folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch

from minimind_core.config import Workbook, load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.experiments.results import finished
from minimind_core.experiments.runner import perform
from minimind_core.experiments.settings import Experiment, load_experiments


def perform_by_name(name: str, root: str, size: str, kdconv: Sequence[str] = (), threads: int = 0) -> str:
    """Perform one experiment of the project at `root`; a finished one is not run again."""
    workbook = load_workbook(Path(root))
    experiment = load_experiments(workbook.root / "experiments.toml")[name]
    if threads:
        torch.set_num_threads(threads)
    if not finished(workbook, experiment, size):
        perform(workbook, experiment, size, [Path(path) for path in kdconv])
    return name


def perform_all(
    workbook: Workbook,
    experiments: Sequence[Experiment],
    size: str = "default",
    kdconv: Sequence[Path] = (),
    jobs: int = 1,
    scheduler: str = "",
) -> Iterator[tuple[str, str]]:
    """Perform what is missing or changed; yields (name, "" or what went wrong) as each ends."""
    waiting = [item.name for item in experiments if not finished(workbook, item, size)]
    given = (str(workbook.root), size, [str(path.resolve()) for path in kdconv])
    threads = 0 if scheduler else max(1, (os.cpu_count() or 1) // jobs)
    with cluster(scheduler) if scheduler else processes(jobs) as executor:
        tasks = {executor.submit(perform_by_name, name, *given, threads): name for name in waiting}
        for task in as_completed(tasks):
            yield tasks[task], outcome(task.exception())


def processes(jobs: int) -> Executor:
    """So many processes on this machine."""
    if jobs > 1:  # two torch processes that spin for each other's cores are three times slower
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent)


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """A Dask cluster; what a lost worker had begun goes on elsewhere from its checkpoint."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise WorkbookError(
            "--scheduler 需要 distributed 这个包。请先运行 pip install distributed。"
        ) from error
    with Client(address, timeout="20s") as client:
        yield client.get_executor(retries=2)


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it does, however that ended."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def outcome(error: BaseException | None) -> str:
    """One line about a task's failure, or nothing."""
    if error is None:
        return ""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[-1] if said else ''}"
