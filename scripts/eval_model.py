"""The course's test command.

MiniMind's flags, questions from the workbook and its data, never a fixed list of names.

python eval_model.py --lora_name lora_music --model_mode 1
python eval_model.py --lora_name None --model_mode 1        (the base alone)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minimind_core.cli import number
from minimind_core.cli.models import talk
from minimind_core.config import Workbook, load_workbook
from minimind_core.conversations.importing import training_rows
from minimind_core.conversations.mixing import dataset_file
from minimind_core.errors import WorkbookError, exit_with
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.claims import claim_check
from minimind_core.inference.decoding import Decoding
from minimind_core.modeling.tokenizer import Message
from minimind_core.training.run_files import base_sha256, read_run, run_folder, trained_runs
from minimind_core.training.runs import load_model

MODES = {1: "full_sft", 2: "rlhf"}  # MiniMind's numbers for the base that a LoRA was trained on


def parse() -> argparse.Namespace:
    """MiniMind's flag names."""
    parser = argparse.ArgumentParser(description="测试（参数名与 MiniMind 相同）")
    parser.add_argument("--lora_name", default="None", help="训练时的名字；None 是只用基座")
    parser.add_argument(
        "--model_mode", type=int, choices=MODES, default=1, help="1：对话基座（full_sft）；2：RLHF 基座"
    )
    parser.add_argument(
        "--load",
        type=int,
        choices=(0, 1),
        default=1,
        help="1：workbook.toml 的 base；0：OUT_DIR 里 MiniMind 的 .pth",
    )
    parser.add_argument("--out_dir", type=Path, help="放 .pth 的文件夹（默认项目里的 out）")
    parser.add_argument("--temperature", type=number(0, 5), default=0.0)
    parser.add_argument("--max_new_tokens", type=number(1, 512, int), default=64)
    parser.add_argument("--no_check", action="store_true", help="不核对，原样给出模型的话")
    parser.add_argument("--chat", action="store_true", help="答完后继续手动提问")
    return parser.parse_args()


def base_path(workbook: Workbook, arguments: argparse.Namespace) -> Path:
    """The base that mode and load ask for; one that is not there is refused with the reason."""
    if arguments.load == 1 and arguments.model_mode == 1:
        return workbook.base
    path = arguments.out_dir / f"{MODES[arguments.model_mode]}_512.pth"
    if not path.is_file():
        raise WorkbookError(
            f"--model_mode {arguments.model_mode} 要用 {path}，"
            "这个文件不存在。自带的基座是 --model_mode 1 --load 1。"
        )
    return path


def check_base(workbook: Workbook, name: str, base: Path, mode: int) -> None:
    """Refuse a base on which the adapter was not trained: it would answer nonsense without any error."""
    record = run_folder(workbook, name) / "run.json"
    if not record.is_file():
        return
    trained = read_run(record.parent)
    if trained["base_sha256"] != base_sha256(base):
        raise WorkbookError(
            f"{name} 是在 {trained['base']} 上训练的，--model_mode {mode} 装的却是 "
            f"{base}。LoRA 只能配训练它的基座，请换 --model_mode 或 --load。"
        )


def questions(workbook: Workbook, name: str) -> list[list[Message]]:
    """The workbook's own questions, and a few dialogues of the file that the adapter was trained on."""
    record = run_folder(workbook, name) / "run.json" if name != "None" else None
    data = dataset_file(workbook, "train")
    if record and record.is_file():
        data = workbook.root / read_run(record.parent)["data"]
    rows = [row for _, row in training_rows(data, lambda line: None)] if data.is_file() else []
    own = [[{"role": "user", "content": question}] for question in workbook.show_questions]
    return own + [row.messages[:-1] for row in rows[:: max(1, len(rows) // 6)][:6]]


def newest_adapter(workbook: Workbook, arguments: argparse.Namespace) -> Path:
    """The .pth or the run's adapter of this name, whichever was written last."""
    name = arguments.lora_name
    files = [
        *(arguments.out_dir / "lora").glob(f"{name}_*.pth"),
        run_folder(workbook, name) / "adapter.safetensors",
    ]
    found = [path for path in files if path.is_file()]
    if not found:
        names = "、".join(existing(workbook, arguments))
        raise WorkbookError(
            f"{arguments.out_dir / 'lora'} 里没有 {name} 的 .pth，也没有运行 {name}。现有：{names}。"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def load_assistant(workbook: Workbook, arguments: argparse.Namespace) -> Assistant:
    """The base with the newest adapter of this name."""
    name = arguments.lora_name
    decoding = Decoding(max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature)
    base, adapter = base_path(workbook, arguments), None
    if name != "None":
        adapter = newest_adapter(workbook, arguments)
        check_base(workbook, name, base, arguments.model_mode)
    model, tokenizer = load_model(base, adapter)
    check = None if arguments.no_check or name == "None" else claim_check(workbook)
    return Assistant(model, tokenizer, decoding, check)


def existing(workbook: Workbook, arguments: argparse.Namespace) -> list[str]:
    """Names that --lora_name can take."""
    files = (arguments.out_dir / "lora").glob("*.pth")
    return [*sorted({path.stem.rsplit("_", 1)[0] for path in files} | set(trained_runs(workbook))), "None"]


def main() -> int:
    """Load, answer, and go on talking if asked to."""
    arguments = parse()
    workbook = load_workbook(Path(__file__).resolve().parents[1])
    arguments.out_dir = arguments.out_dir or workbook.root / "out"
    assistant = load_assistant(workbook, arguments)
    asked = questions(workbook, arguments.lora_name)
    for messages, answer in zip(asked, assistant.answer_all(asked), strict=True):
        print(
            "\n".join(f"{'问' if m['role'] == 'user' else '答'}：{m['content']}" for m in messages)
            + f"\n答：{answer.text}\n"
        )
    if arguments.chat:
        talk(assistant)
    return 0


if __name__ == "__main__":
    exit_with(main)
