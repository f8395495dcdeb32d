"""Many experiments through papermill: in parallel processes here, or on a Dask cluster that shares the project folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path

import nbformat

from minimind_core.config import Workbook, load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.experiments import Experiment, finished, load_experiments
from minimind_core.reporting.notebooks import execute, write_notebook
from minimind_core.training.runs import run_folder

CELLS = (
    "from pathlib import Path\n\nfrom minimind_core.config import load_workbook\n"
    "from minimind_core.evaluation.experiments import load_experiments, perform\n\nworkbook = load_workbook()",
    "experiment = load_experiments(workbook.root / 'experiments.toml')[NAME]\nexperiment",
    "result = perform(workbook, experiment, SIZE, [Path(path) for path in KDCONV])",
    "{suite: f\"{score['right']}/{score['n']}\" for suite, score in result['scores'].items()}",
)


def experiment_notebook(path: Path) -> None:
    """The notebook that performs one experiment, not yet run."""
    parameters = nbformat.v4.new_code_cell('NAME = ""\nSIZE = "default"\nKDCONV = []', metadata={"tags": ["parameters"]})
    cells = [parameters, *map(nbformat.v4.new_code_cell, CELLS)]
    write_notebook(path, cells)


def perform_in_notebook(root: str, name: str, size: str, kdconv: Sequence[str] = (), threads: int = 0) -> str:
    """Run one experiment's notebook in the project at `root`; leaves runs/NAME/experiment.ipynb. A finished one is not run again."""
    workbook = load_workbook(Path(root))
    if finished(workbook, load_experiments(workbook.root / "experiments.toml")[name], size):
        return name
    if threads:
        os.environ |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    source, target = (run_folder(workbook, name) / f"{stem}.ipynb" for stem in ("experiment_source", "experiment"))
    experiment_notebook(source)
    execute(source, target, {"NAME": name, "SIZE": size, "KDCONV": list(kdconv)}, workbook.root)
    source.unlink()
    return name


def perform_all(
    workbook: Workbook, experiments: Sequence[Experiment], size: str = "default", kdconv: Sequence[Path] = (), jobs: int = 1, scheduler: str = ""
) -> Iterator[tuple[str, str]]:
    """Perform what is missing or changed; yields (name, "" or what went wrong) as each ends."""
    waiting = [e.name for e in experiments if not finished(workbook, e, size)]
    paths = [str(path.resolve()) for path in kdconv]
    if scheduler:
        yield from on_cluster(scheduler, str(workbook.root), waiting, size, paths)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        tasks = {pool.submit(perform_in_notebook, str(workbook.root), name, size, paths, threads): name for name in waiting}
        for task in as_completed(tasks):
            yield tasks[task], outcome(task.exception)


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it does, however that ended; a notebook's kernel then ends with it."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def outcome(exception: Callable[[], BaseException | None]) -> str:
    """One line about a task's failure, or nothing."""
    error = exception()
    return "" if error is None else f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"


def on_cluster(address: str, root: str, names: Sequence[str], size: str, kdconv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The same on a Dask cluster; what a lost worker had begun goes on elsewhere from its checkpoint."""
    try:
        from distributed import Client
        from distributed import as_completed as ended
    except ModuleNotFoundError as error:
        raise WorkbookError("--scheduler 需要 distributed 这个包。请先运行 pip install distributed。") from error
    with Client(address, timeout="20s") as client:
        tasks = {client.submit(perform_in_notebook, root, name, size, list(kdconv), key=f"{name}-{size}", retries=2): name for name in names}
        for task in ended(tasks):
            yield tasks[task], outcome(task.exception)
