"""The course's test command.

MiniMind's flags, questions from the workbook and its data, never a fixed list of names.

python eval_model.py --lora_name lora_music --model_mode 1
python eval_model.py --lora_name None --model_mode 1        (the base alone)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minimind_core.config import Workbook, load_workbook
from minimind_core.conversations.importing import training_rows
from minimind_core.conversations.mixing import dataset_file
from minimind_core.devices import choose_device
from minimind_core.errors import WorkbookError, exit_with
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.claims import claim_check
from minimind_core.inference.decoding import Decoding
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.fast import lower_frozen
from minimind_core.modeling.lora import load_adapter, merge_lora
from minimind_core.modeling.tokenizer import Message
from minimind_core.training.run_files import base_sha256, run_folder, trained_runs

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
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max_new_tokens", type=int, default=64)
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
    trained = json.loads(record.read_text(encoding="utf-8"))
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
        data = workbook.root / json.loads(record.read_text(encoding="utf-8"))["data"]
    rows = [row for _, row in training_rows(data, lambda line: None)] if data.is_file() else []
    own = [[{"role": "user", "content": question}] for question in workbook.show_questions]
    return own + [row.messages[:-1] for row in rows[:: max(1, len(rows) // 6)][:6]]


def load_assistant(workbook: Workbook, arguments: argparse.Namespace) -> Assistant:
    """The base with the .pth of this name or, where there is none, the adapter of the run of this name."""
    name = arguments.lora_name
    decoding = Decoding(max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature)
    base = base_path(workbook, arguments)
    model, tokenizer = load_base(base)
    if name != "None":
        adapter = arguments.out_dir / "lora" / f"{name}_{model.config.hidden_size}.pth"
        run = run_folder(workbook, name) / "adapter.safetensors"
        if not adapter.is_file() and not run.is_file():
            raise WorkbookError(
                f"没有 {adapter}，也没有运行 {name}。现有：{'、'.join(existing(workbook, arguments))}。"
            )
        check_base(workbook, name, base, arguments.model_mode)
        merge_lora(load_adapter(adapter if adapter.is_file() else run, model))
    lower_frozen(model.requires_grad_(False).eval().to(choose_device()))
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
    messages: list[Message] = []
    while arguments.chat and (question := input("问（空行结束）：").strip()):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": assistant.answer(messages).text})
        print("答：" + messages[-1]["content"])
    return 0


if __name__ == "__main__":
    exit_with(main)
