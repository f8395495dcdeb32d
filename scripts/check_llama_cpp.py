"""Compare our greedy answers with llama.cpp's, from the GGUF files that `minimind export` writes.

    npm install --prefix FOLDER node-llama-cpp@3.21.1 --ignore-scripts
    python scripts/check_llama_cpp.py --modules FOLDER --run main

Both see the same dialogues: blind test questions, and dialogues of two turns with our own answer between.
Nothing is judged right or wrong here, only equal or not. Writes report/results/llama_cpp.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from minimind_core.config import Workbook, load_workbook
from minimind_core.errors import WorkbookError, exit_with
from minimind_core.evaluation.suites import blind_rows
from minimind_core.files import write_json
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import generate
from minimind_core.modeling import exporting
from minimind_core.modeling.lora import merge_lora
from minimind_core.modeling.tokenizer import Message
from minimind_core.training.run_files import base_sha256, environment, load_source

PROJECT = Path(__file__).resolve().parents[1]
INSTALL = "npm install --prefix {} node-llama-cpp@3.21.1 --ignore-scripts"
FORMATS = {"F16": "gguf", "Q8_0": "gguf-q8"}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="把我们的贪心回答和 llama.cpp 的逐条对照")
    parser.add_argument("--root", type=Path, default=PROJECT, help="项目的文件夹")
    parser.add_argument("--run", default="main", help="运行名，base 是基座")
    parser.add_argument(
        "--modules", type=Path, required=True, metavar="FOLDER", help="装有 node-llama-cpp 的文件夹"
    )
    parser.add_argument("--node", default="node", help="Node.js 的命令")
    parser.add_argument("--count", type=int, default=50, help="取几道只有一轮的题；两轮的再取十分之一")
    return parser.parse_args()


def spread(rows: list, count: int) -> list:
    """At most `count` rows, evenly spaced."""
    return rows[:: max(1, len(rows) // max(1, count))][:count]


def our_answers(
    workbook: Workbook, source: exporting.Source, count: int, decoding: Decoding
) -> tuple[list, list[str]]:
    """Dialogues that end with the user's turn, and the model's own answer to each."""
    model = merge_lora(source.model).requires_grad_(False).eval()

    def answer(dialogues: list[list[Message]]) -> list[str]:
        return [a.text for a in generate(model, source.tokenizer, dialogues, decoding)]

    turns = [row["turns"] for row in blind_rows(workbook.questions("test"))]
    single = [[user(t[0])] for t in spread([t for t in turns if len(t) == 1], count)]
    two = spread([t for t in turns if len(t) == 2], count // 10)
    between = answer([[user(t[0])] for t in two])
    double = [
        [user(t[0]), {"role": "assistant", "content": said}, user(t[1])]
        for t, said in zip(two, between, strict=True)
    ]
    return single + double, answer(single + double)


def user(text: str) -> Message:
    """The user's turn."""
    return {"role": "user", "content": text}


def their_answers(arguments: argparse.Namespace, model: Path, dialogues: list, limit: int) -> dict:
    """What llama.cpp says; see llama_cpp.mjs."""
    if shutil.which(arguments.node) is None:
        raise WorkbookError(f"找不到命令 {arguments.node}。请先安装 Node.js，或用 --node 写出它的路径。")
    if not (arguments.modules / "node_modules" / "node-llama-cpp").is_dir():
        raise WorkbookError(
            f"{arguments.modules}: 没有装 node-llama-cpp。请先运行 {INSTALL.format(arguments.modules)}"
        )
    request = {"model": str(model), "dialogues": dialogues, "max_tokens": limit}
    done = subprocess.run(
        [arguments.node, str(Path(__file__).with_name("llama_cpp.mjs")), str(arguments.modules)],
        input=json.dumps(request), capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        raise WorkbookError(f"llama.cpp 没有跑完：{done.stderr.strip()[-800:]}")
    return json.loads(done.stdout)


@torch.no_grad()
def main() -> int:
    """Export, ask both, compare, write the result."""
    arguments = parse()
    workbook, decoding = load_workbook(arguments.root), Decoding()
    result: dict = {"run": arguments.run, "base_sha256": base_sha256(workbook.base), **environment()}
    dialogues, ours = our_answers(workbook, load_source(workbook, arguments.run), arguments.count, decoding)
    result |= {
        "dialogues": len(dialogues), "of_two_turns": sum(len(d) > 1 for d in dialogues), "formats": {}
    }  # fmt: skip
    for name, form in FORMATS.items():
        with TemporaryDirectory() as folder:
            exporting.export(form, load_source(workbook, arguments.run), Path(folder))
            file = Path(folder) / "model.gguf"
            said = their_answers(arguments, file, dialogues, decoding.max_new_tokens)
            size = file.stat().st_size
        differing = [
            {"dialogue": dialogue, "ours": own, "theirs": theirs}
            for dialogue, own, theirs in zip(dialogues, ours, said["answers"], strict=True)
            if own != theirs
        ]
        equal = len(dialogues) - len(differing)
        result["engine"] = f"node-llama-cpp {said['engine']}"
        result["formats"][name] = {"bytes": size, "equal": equal, "differing": differing}
        print(f"{name}：{len(dialogues)} 段对话里 {equal} 段的回答相同")
    write_json(workbook.root / "report" / "results" / "llama_cpp.json", result)
    return 0


if __name__ == "__main__":
    exit_with(main)
