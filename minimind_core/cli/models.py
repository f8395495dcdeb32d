"""Verbs that train, score and talk."""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.ledger import OUTCOMES, ledger, readable
from minimind_core.evaluation.scoring import evaluate_run
from minimind_core.files import write_json, write_jsonl
from minimind_core.inference.assistant import Assistant
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.questions import read_questions
from minimind_core.modeling.lora import lora_state
from minimind_core.training.parallel import is_first, process_group
from minimind_core.training.run_files import load_source
from minimind_core.training.runs import Run, prepare_run
from minimind_core.training.tracking import Log, tracking

GOODBYES = ("退出", "结束", "exit", "quit", ":q", "/exit", "/bye")  # words that end a talk in the terminal


def train(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Train an adapter; under torchrun every process takes its part and the first one writes."""
    if arguments.seed is not None:
        workbook = replace(workbook, seed=arguments.seed)
    if arguments.experiment:
        from minimind_core.cli.experiments import train_experiment

        refuse_unused(arguments)
        return train_experiment(workbook, arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with process_group(arguments.device) as device:
        run = prepare_run(
            workbook,
            arguments.run,
            arguments.profile,
            resume=arguments.resume,
            data=arguments.data,
            device=device,
        )
        with tracking(
            arguments.track if is_first() else None, run.folder, "minimind-lora", run.settings
        ) as log:
            show_training(run, log)
    return 0


def refuse_unused(arguments: argparse.Namespace) -> None:
    """Name the options that an experiment settles itself."""
    given = [name for name in ("profile", "data", "device", "threads", "track") if getattr(arguments, name)]
    given += ["resume"] * arguments.resume + ["run"] * (arguments.run != "main")
    if given:
        options = "、".join(f"--{name}" for name in given)
        raise WorkbookError(
            f"--experiment 不能和 {options} 一起用：设置和运行名由实验决定，中断后再运行一次就接着训练。"
        )


def show_training(
    run: Run, log: Log, every: int = 0, save: Callable[[dict[str, Tensor]], None] | None = None
) -> None:
    """Train with a progress bar, or with lines where there is no terminal.

    `save` gets the adapter `every` so many steps.
    """
    if not is_first():
        deque(run.train(), maxlen=0)
        return
    print(
        f"训练 {run.name}：{run.settings['rows']} 行，{len(run.source)} 步，"
        f"{run.settings['trainable_parameters']:,} 个可训练参数"
    )
    with tqdm(total=len(run.source), unit="步", disable=None) as bar:
        for record in run.train():
            log(record)
            if every and save and record.step % every == 0:
                save(lora_state(run.model))
            bar.n = record.step
            valid = "" if record.valid_loss is None else f"，验证 {record.valid_loss:.3f}"
            bar.set_postfix_str(f"损失 {record.mean_loss:.3f}{valid}")
            if bar.disable and record.valid_loss is not None:
                print(
                    f"第 {record.step}/{record.total_steps} 步，损失 "
                    f"{record.mean_loss:.3f}{valid}，已用 {record.seconds:.0f} 秒",
                    flush=True,
                )
    print(f"已保存到 {run.folder}")


def evaluate(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Score a run on every suite."""
    result = evaluate_run(workbook, arguments.run, arguments.profile)
    if arguments.json:
        write_json(arguments.json, result)
    checked = result.get("checked_scores", {})
    print("原话" + ("，核对之后" if checked else ""))
    for name, label in OUTCOMES.items():
        score = result["scores"][name]
        if not score["n"]:
            continue
        after = f"  {checked[name]['share']:7.1%}" if checked else ""
        interval = f"95% 区间 {score['low']:.1%}–{score['high']:.1%}"
        print(f"{score['share']:7.1%}{after}  {label}：{score['right']}/{score['n']}，{interval}")
    return 0


def runs(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """The table of all runs."""
    table = ledger(workbook)
    print(readable(table).T.to_string() if len(table) else "还没有任何运行。请先运行 minimind train。")
    return 0


def export(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """A run in another program's format."""
    from minimind_core.modeling import exporting

    folder = arguments.out or workbook.root / "out" / f"{arguments.run}_{arguments.format}"
    source = load_source(workbook, arguments.run)
    for written in exporting.export(arguments.format, source, folder):
        print(f"{written}（{written.stat().st_size / 1e6:.1f} MB）")
    return 0


def download(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Official weights from a hub."""
    from minimind_core.modeling import downloading

    folder = workbook.root / "weights" / arguments.name
    downloading.download(arguments.name, arguments.source, folder)
    print(f'已下载到 {folder}。在 workbook.toml 里写 base = "weights/{arguments.name}" 即可使用。')
    return 0


def ask(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Answer the questions of a file, one JSON object a line."""
    dialogues = read_questions(arguments.questions)
    decoding = Decoding(max_new_tokens=arguments.max_new_tokens)
    assistant = Assistant.load(workbook, arguments.run, decoding, check=not arguments.no_check)
    with tqdm(total=len(dialogues), unit="题", disable=None) as bar:
        answers = assistant.answer_all(dialogues, report=bar.update)
    rows = [
        {"question": messages[-1]["content"], "answer": a.text, "new_tokens": a.new_tokens, "ended": a.ended}
        | ({"withdrawn": a.own} if a.own is not None else {})  # what the model itself said
        for messages, a in zip(dialogues, answers, strict=True)
    ]
    if arguments.out:
        write_jsonl(arguments.out, rows)
    else:
        print("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return 0


def chat(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Talk with a run in the terminal; it remembers the dialogue."""
    decoding = Decoding(temperature=arguments.temperature)
    assistant = Assistant.load(workbook, arguments.run, decoding, check=not arguments.no_check)
    print(f"和 {arguments.run} 对话：直接输入问题；空行、“退出”或 Ctrl-C 结束。")
    talk(assistant)
    return 0


def talk(assistant: Assistant) -> None:
    """Question and answer in turn, until an empty line, a goodbye, Ctrl-C or Ctrl-D."""
    messages: list[dict[str, str]] = []
    try:
        while (question := input("问：").strip()) and question.lower() not in GOODBYES:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": print_answer(assistant, messages)})
    except (EOFError, KeyboardInterrupt):
        print()


def print_answer(assistant: Assistant, messages: list[dict[str, str]]) -> str:
    """Print an answer as it grows; one that the check withdraws is followed by what is said instead."""
    print("答：", end="")
    shown = ""
    for answer in assistant.stream(messages):
        if answer.own is not None:
            print(f"\n　　（没有通过核对，改说）{answer.text}", end="")
        else:
            print(answer.text[len(shown) :], end="", flush=True)
        shown = answer.text
    print()
    return shown
