"""Many experiments: in parallel processes here, or on a Dask cluster that shares the project folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch

from minimind_core.config import Workbook, load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.experiments.results import finished
from minimind_core.experiments.runner import perform
from minimind_core.experiments.settings import Experiment, load_experiments


def perform_by_name(root: str, name: str, size: str, kdconv: Sequence[str] = (), threads: int = 0) -> str:
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
    waiting = [e.name for e in experiments if not finished(workbook, e, size)]
    paths = [str(path.resolve()) for path in kdconv]
    if scheduler:
        yield from on_cluster(scheduler, str(workbook.root), waiting, size, paths)
        return
    os.environ["OMP_WAIT_POLICY"] = (
        "PASSIVE"  # two torch processes that spin for each other's cores are three times slower
    )
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        tasks = {
            pool.submit(perform_by_name, str(workbook.root), name, size, paths, threads): name
            for name in waiting
        }
        for task in as_completed(tasks):
            yield tasks[task], outcome(task.exception)


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it does, however that ended."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def outcome(exception: Callable[[], BaseException | None]) -> str:
    """One line about a task's failure, or nothing."""
    error = exception()
    if error is None:
        return ""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[-1] if said else ''}"


def on_cluster(
    address: str, root: str, names: Sequence[str], size: str, kdconv: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The same on a Dask cluster; what a lost worker had begun goes on elsewhere from its checkpoint."""
    try:
        from distributed import Client
        from distributed import as_completed as ended
    except ModuleNotFoundError as error:
        raise WorkbookError(
            "--scheduler 需要 distributed 这个包。请先运行 pip install distributed。"
        ) from error
    with Client(address, timeout="20s") as client:
        tasks = {
            client.submit(
                perform_by_name, root, name, size, list(kdconv), key=f"{name}-{size}", retries=2
            ): name
            for name in names
        }
        for task in ended(tasks):
            yield tasks[task], outcome(task.exception)
