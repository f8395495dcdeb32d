"""What training costs against the number of rows: seconds until the first step, peak memory, seconds a step.

    python benchmarks/rows.py [--rows 1000 10000 100000]

The rows are the training file's, repeated with a number in each question so that all differ; each size has a
process of its own. Writes report/results/benchmark_rows.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from minimind_core.config import PROFILES, load_workbook
from minimind_core.conversations.schema import dialogue, read_conversations
from minimind_core.files import write_json, write_jsonl
from minimind_core.training.runs import prepare_run
from minimind_core.training.trainer import train

STEPS = 8


def write_rows(path: Path, count: int) -> None:
    """So many rows that all differ."""
    rows = islice(cycle(read_conversations(load_workbook().dataset / "train.jsonl")), count)
    write_jsonl(
        path, [dialogue(f"{i}号：{row.question}", row.answer).model_dump() for i, row in enumerate(rows)]
    )


def measure(path: Path) -> dict[str, float]:
    """Prepare a run on the file and take a few steps; nothing is written."""
    started = time.perf_counter()
    run = prepare_run(load_workbook(), "benchmark_rows", PROFILES["default"], data=path)
    prepared = time.perf_counter()
    records = list(islice(train(run.model, run.source, run.profile.train), STEPS))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "prepare_seconds": prepared - started,
        "step_seconds": records[-1].seconds / STEPS,
        "steps": len(run.source),
        "peak_mib": peak,
    }


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description="training cost against rows")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--only", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.rows:
            path = Path(folder, f"{count}.jsonl")
            write_rows(path, count)
            result = subprocess.run(
                [sys.executable, __file__, "--only", path], capture_output=True, text=True, check=True
            )
            found[str(count)] = json.loads(result.stdout.splitlines()[-1])
            print(count, found[str(count)], flush=True)
    write_json(load_workbook().results / "benchmark_rows.json", found)


if __name__ == "__main__":
    main()
