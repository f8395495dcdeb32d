"""The course's training command: MiniMind's flags, this workbook's trainer.

    python train_lora.py --lora_name lora_music --data_path ../dataset/train.jsonl --epochs 3
    torchrun --nproc_per_node 2 train_lora.py --lora_name lora_music --data_path ../dataset/train.jsonl

Writes OUT_DIR/lora/LORA_NAME_512.pth in MiniMind's layout, beside the run folder runs/LORA_NAME.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from minimind_core.cli import number
from minimind_core.cli.models import show_training
from minimind_core.config import PROFILES, STOCK_LORA, Profile, load_workbook
from minimind_core.conversations.mixing import dataset_file, write_dataset
from minimind_core.devices import choose_device
from minimind_core.errors import exit_with
from minimind_core.modeling.checkpoint import load_tensors
from minimind_core.modeling.lora import adapter_config
from minimind_core.modeling.pth import write_lora_pth
from minimind_core.training.parallel import is_first, process_group, wait_for_all
from minimind_core.training.runs import prepare_run
from minimind_core.training.tracking import tracking

TOKENS_A_ROW = 64  # of an average conversation, for --batch_size


def parse() -> argparse.Namespace:
    """MiniMind's flag names."""
    parser = argparse.ArgumentParser(description="LoRA 微调（参数名与 MiniMind 相同）")
    parser.add_argument("--lora_name", default="lora_music", help="名字，也是运行名")
    parser.add_argument("--data_path", type=Path, required=True, help="JSONL 训练文件")
    parser.add_argument("--epochs", type=number(1, 1000, int), help="遍数（默认取 workbook.toml 的 profile）")
    parser.add_argument("--learning_rate", type=number(1e-7, 1), help="峰值学习率")
    parser.add_argument(
        "--batch_size",
        type=number(1, 4096, int),
        help=f"每步大约几条对话（按每条 {TOKENS_A_ROW} 个词元折算）",
    )
    parser.add_argument(
        "--save_interval", type=number(0, 1e6, int), default=0, help="每隔几步存一次 .pth；结束时总会存"
    )
    parser.add_argument(
        "--preset",
        choices=("default", "stock"),
        default="default",
        help="stock：MiniMind 原版的 q、o 两层，秩 8",
    )
    parser.add_argument("--use_wandb", action="store_true", help="记录到 wandb")
    parser.add_argument("--wandb_project", default="chatbot_project")
    parser.add_argument("--out_dir", type=Path, help="写 .pth 的文件夹（默认项目里的 out）")
    parser.add_argument("--resume", action="store_true", help="从中断处继续")
    return parser.parse_args()


def chosen_profile(profile: Profile, arguments: argparse.Namespace, device: str) -> Profile:
    """The workbook's profile with what the command line changes."""
    step = arguments.batch_size and arguments.batch_size * TOKENS_A_ROW
    profile = profile if step else profile.on(device)  # a step of a given size keeps the rate that fits it
    changes = {"epochs": arguments.epochs, "tokens_per_step": step}
    changes["lora"] = STOCK_LORA if arguments.preset == "stock" else None
    if arguments.learning_rate:
        changes["train"] = replace(profile.train, learning_rate=arguments.learning_rate)
    return replace(profile, **{name: value for name, value in changes.items() if value})


def main() -> int:
    """Train, and write the .pth."""
    arguments = parse()
    workbook = load_workbook(Path(__file__).resolve().parents[1])
    with process_group() as device:
        profile = chosen_profile(PROFILES[workbook.profile], arguments, choose_device(device).type)
        if is_first() and not dataset_file(workbook, "qa_valid").is_file():
            write_dataset(workbook)
        wait_for_all()
        run = prepare_run(
            workbook,
            arguments.lora_name,
            profile,
            resume=arguments.resume,
            data=arguments.data_path,
            device=device,
        )
        out = arguments.out_dir or workbook.root / "out"
        target = out / "lora" / f"{arguments.lora_name}_{run.model.config.hidden_size}.pth"
        if is_first() and not arguments.resume:
            target.unlink(missing_ok=True)  # an interrupted training must not leave an older adapter behind
        tracker = "wandb" if arguments.use_wandb and is_first() else None
        with tracking(tracker, run.folder, arguments.wandb_project, run.settings) as log:
            show_training(
                run,
                log,
                every=arguments.save_interval,
                save=lambda state: write_lora_pth(target, state, profile.lora),
            )
        if is_first():
            adapter = run.folder / "adapter.safetensors"
            write_lora_pth(target, load_tensors(adapter), adapter_config(adapter))
            print(
                f"已写入 {target}；测试：python eval_model.py "
                f"--lora_name {arguments.lora_name} --model_mode 1"
            )
    return 0


if __name__ == "__main__":
    exit_with(main, stopped="进度已保存，加 --resume 继续。")
