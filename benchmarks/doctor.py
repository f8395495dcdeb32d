"""`minimind doctor` on 100,000 rows beside a plain json + pydantic pass over the same file.

Writes report/results/benchmark_doctor.json.

python benchmarks/doctor.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from minimind_core.config import load_workbook
from minimind_core.conversations.doctor import examine
from minimind_core.conversations.schema import Conversation, dialogue
from minimind_core.files import write_json, write_jsonl
from minimind_core.modeling.tokenizer import count_tokens, load_tokenizer


def made_up(count: int) -> Iterator[Conversation]:
    """Different questions in few wordings, about invented names: the hard case for near duplicates."""
    rng = random.Random(0)
    words, characters = (
        ("专辑", "歌曲", "生日", "母校", "原唱", "填词"),
        "甲乙丙丁春夏秋冬山水风云花鸟星月东南西北金木火土",
    )
    for _ in range(count):
        name, title = ("".join(rng.choices(characters, k=k)) for k in (6, 8))
        yield dialogue(
            f"我想知道{name}的{rng.choice(words)}《{title}》是什么？",
            f"{name}的是{''.join(rng.choices(characters, k=6))}。",
        )


def plain_pass(path: Path) -> int:
    """What a team would write: parse and validate every line, nothing else."""
    return len(
        [
            Conversation.model_validate(json.loads(line))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
    )


def doctor_pass(path: Path) -> int:
    """Every check of the doctor, lengths in tokens included."""
    tokenizer = load_tokenizer(load_workbook().base / "tokenizer.json")
    return len(examine(path, lambda rows: count_tokens(tokenizer, [row.messages for row in rows])))


def measured(name: str, path: Path) -> dict:
    """Seconds and peak memory of one pass in a process of its own."""
    arguments = ["doctor.py", "--only", name, "--file", str(path)]
    code = f"import sys; sys.argv = {arguments!r}; exec(open({__file__!r}, encoding='utf-8').read())"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    """Write the file, measure both passes."""
    parser = argparse.ArgumentParser(description="doctor against a plain pass")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", choices=("plain", "doctor"))
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        started = time.perf_counter()
        found = {"plain": plain_pass, "doctor": doctor_pass}[arguments.only](arguments.file)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.perf_counter() - started, "peak_mib": peak, "found": found}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.jsonl"
        write_jsonl(path, (row.model_dump() for row in made_up(arguments.rows)))
        result = {
            "rows": arguments.rows,
            "plain": measured("plain", path),
            "doctor": measured("doctor", path),
        }
    result["ratio"] = result["doctor"]["seconds"] / result["plain"]["seconds"]
    write_json(load_workbook().results / "benchmark_doctor.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
