"""The server under load: many clients at once for a while, its memory watched.

    python benchmarks/server.py [--clients 32] [--seconds 60] [--run main]

Starts `minimind serve` in a process of its own. Every client asks one validation question after another over
HTTP. An answer that differs from the one that the same question got before is written down: one that was
mixed up is about something else, one of another rounding in another batch is not. Memory is read from /proc
(Linux). Writes report/results/benchmark_server.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from minimind_core.config import load_workbook
from minimind_core.evaluation.suites import blind_rows
from minimind_core.files import write_json
from minimind_core.reporting.browser import local_server

WARM = 64  # questions before the clock starts


def resident_mib(process: int) -> float:
    """Memory of a process that lies in RAM."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Load:
    """Clients that ask until the time is over."""

    def __init__(self, address: str, run: str, questions: list[str]) -> None:
        self.address, self.run, self.questions = address, run, questions
        self.said: dict[str, str] = {}
        self.waits: list[float] = []
        self.changed: list[tuple[str, str, str]] = []  # question, its first answer, another one
        self.failed = 0
        self.lock = threading.Lock()

    def ask(self, client: httpx.Client, question: str) -> None:
        """Ask one question and note what came back."""
        body = {"model": self.run, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
        started = time.perf_counter()
        try:
            reply = client.post("/v1/chat/completions", json=body).raise_for_status()
        except httpx.HTTPError:
            with self.lock:
                self.failed += 1
            return
        wait = time.perf_counter() - started
        text = reply.json()["choices"][0]["message"]["content"]
        with self.lock:
            if (first := self.said.setdefault(question, text)) != text:
                self.changed.append((question, first, text))
            self.waits.append(wait)

    def keep_asking(self, start: int, until: float) -> None:
        """One client: its own order of the questions, again and again."""
        with httpx.Client(base_url=self.address, timeout=120) as client:
            place = start
            while time.monotonic() < until:
                self.ask(client, self.questions[place % len(self.questions)])
                place += 7

    def all_at_once(self, clients: int, seconds: float) -> None:
        """So many clients for so long."""
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for asking in [pool.submit(self.keep_asking, 31 * n, until) for n in range(clients)]:
                asking.result()


def main() -> None:
    """Start, warm up, load, watch, write."""
    parser = argparse.ArgumentParser(description="the server under load")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--run", default="main")
    arguments = parser.parse_args()
    workbook = load_workbook()
    questions = [row["turns"][0] for row in blind_rows(workbook.questions("valid"))]
    command = [sys.executable, "-m", "minimind_core.cli", "serve", "--run", arguments.run, "--port", "{port}"]
    with local_server(command, workbook.root, workbook.runs / "serve.log") as (address, server):
        load = Load(address, arguments.run, questions)
        with httpx.Client(base_url=address, timeout=120) as client:
            for question in questions[:WARM]:
                load.ask(client, question)
        alone = float(np.median(load.waits))
        load.waits.clear()
        memory: list[tuple[float, float]] = []
        worker = threading.Thread(target=load.all_at_once, args=(arguments.clients, arguments.seconds))
        started = time.monotonic()
        worker.start()
        while worker.is_alive():
            memory.append((round(time.monotonic() - started, 1), round(resident_mib(server.pid), 1)))
            worker.join(1)
        elapsed = time.monotonic() - started
    found = {
        "run": arguments.run, "clients": arguments.clients, "seconds": elapsed, "answers": len(load.waits),
        "failed": load.failed, "changed": load.changed, "answers_per_second": len(load.waits) / elapsed,
        "alone_wait_seconds": alone,
        "wait_seconds": {f"p{q}": float(np.quantile(load.waits, q / 100)) for q in (50, 95, 99)},
        "memory_mib": memory,
    }  # fmt: skip
    write_json(workbook.results / "benchmark_server.json", found)
    print({key: value for key, value in found.items() if key != "memory_mib"}, memory[0], memory[-1])


if __name__ == "__main__":
    main()
