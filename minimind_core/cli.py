"""The `minimind` command: one verb a stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from minimind_core.collection.facts import read_facts
from minimind_core.collection.kdconv import agrees, compare, read_kdconv
from minimind_core.config import PROFILES, ModelConfig, Workbook, load_workbook
from minimind_core.conversations.doctor import capacity, examine, fix, leaks
from minimind_core.conversations.mixing import dataset_file, write_dataset
from minimind_core.conversations.recipes import RECIPES, build_recipe
from minimind_core.conversations.schema import read_conversations
from minimind_core.errors import WorkbookError
from minimind_core.files import write_json, write_jsonl


def collect(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Check facts.csv, and compare it with KdConv's triples where both speak."""
    facts = read_facts(workbook.facts)
    print(f"{workbook.facts}: {len(facts)} 条事实，{len({f.subject for f in facts})} 个对象，格式正确。")
    for path in arguments.kdconv:
        dialogues = read_kdconv(path)
        triples = [triple for dialogue in dialogues for triple in dialogue.triples]
        print(f"{path}: {len(dialogues)} 段对话，{sum(len(d.messages) for d in dialogues)} 条消息，{len(set(triples))} 个三元组。")
        for fact, values in compare(facts, triples):
            print(f"  {'一致' if agrees(fact, values) else '不同'}：{fact.subject} {fact.attribute}：{fact.value}｜KdConv：{'、'.join(values)}")
    return 0


def build_dataset(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Facts and persona to dataset/*.jsonl, or one of the log's recipes to dataset/raw/."""
    if arguments.recipe != "default":
        path, rows = build_recipe(workbook, arguments.recipe, arguments.kdconv)
        print(f"{path}: {rows} 行（{RECIPES[arguments.recipe][0]}）")
        return 0
    for name, rows in write_dataset(workbook).items():
        print(f"{dataset_file(workbook, name)}: {rows} 行")
    return 0


def doctor(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Examine JSONL files; exit status 1 when errors remain."""
    from minimind_core.modeling.lora import lora_size
    from minimind_core.modeling.tokenizer import count_tokens, load_tokenizer

    tokenizer = load_tokenizer(workbook.base / "tokenizer.json")
    if arguments.fix:
        if len(arguments.files) != 1 or arguments.fix.resolve() == arguments.files[0].resolve():
            raise WorkbookError("--fix 一次修一个文件，并且要写到另一个文件名。")
        kept, dropped = fix(arguments.files[0], arguments.fix)
        print(f"{arguments.fix}: 保留 {kept} 行，去掉 {dropped} 行；原文件没有改动。下面是修好的文件里还剩的问题。")
        arguments.files = [arguments.fix]
    findings = []
    for path in tqdm(arguments.files, desc="检查", unit="个文件", disable=None):
        findings += examine(path, lambda rows: count_tokens(tokenizer, [row.messages for row in rows]))
    train = dataset_file(workbook, "train")
    if train.is_file():
        findings += [f for path in arguments.files if path.stem.endswith("_test") for f in leaks(path, read_conversations(train))]
    for finding in findings[: arguments.limit]:
        print(finding)
    errors = sum(finding.error for finding in findings)
    print(f"共 {errors} 个错误，{len(findings) - errors} 个提醒。")
    profile = PROFILES[workbook.profile]
    for path in [path for path in arguments.files if path.stem == "train" and not errors]:
        meter = capacity(read_conversations(path), lora_size(profile.lora, ModelConfig()), profile.epochs)
        print(
            f"{path}: 回答约 {meter.bits:,} 比特，适配器 {meter.parameters:,} 个参数，占容量的 {meter.load:.0%}；最少见的事实全程出现 {meter.fewest} 次。"
        )
        print("".join(f"提醒：{text}\n" for text in meter.warnings()), end="")
    return 1 if errors else 0


def train(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Train an adapter."""
    from minimind_core.training.runs import prepare_run

    run = prepare_run(workbook, arguments.run, arguments.profile, resume=arguments.resume, data=arguments.data)
    print(f"训练 {run.name}：{run.settings['rows']} 行，{len(run.source)} 步，{run.settings['trainable_parameters']:,} 个可训练参数")
    with tqdm(total=len(run.source), unit="步", disable=None) as bar:
        for record in run.train():
            bar.n = record.step
            valid = "" if record.valid_loss is None else f"，验证 {record.valid_loss:.3f}"
            bar.set_postfix_str(f"损失 {record.mean_loss:.3f}{valid}")
            if bar.disable and record.valid_loss is not None:
                print(f"第 {record.step}/{record.total_steps} 步，损失 {record.mean_loss:.3f}{valid}，已用 {record.seconds:.0f} 秒", flush=True)
    print(f"已保存到 {run.folder}")
    return 0


def evaluate(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Score a run on every suite."""
    from minimind_core.evaluation.scoring import evaluate_run

    result = evaluate_run(workbook, arguments.run, arguments.profile)
    if arguments.json:
        write_json(arguments.json, result)
    for name, score in result["scores"].items():
        print(f"{name:16} {score['share']:7.1%}  {score['right']}/{score['n']}  95% 区间 {score['low']:.1%}–{score['high']:.1%}")
    return 0


def read_questions(path: Path) -> list[list[dict[str, str]]]:
    """Dialogues from plain lines, or JSONL with "question" or "conversations"."""
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到问题文件。请每行写一个问题。")
    dialogues = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkbookError(f"{path}: 不是 UTF-8 编码。请另存为 UTF-8。") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if not line.lstrip().startswith("{"):
            dialogues.append([{"role": "user", "content": line.strip()}])
            continue
        try:
            item = json.loads(line)
            turns = item.get("conversations") or [{"role": "user", "content": item["question"]}]
            messages = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise WorkbookError(f"{path}:{number}: 应是一个问题，或含 question / conversations 的 JSON（{error!r}）。请改正这一行。") from error
        messages = messages if messages[-1]["role"] == "user" else messages[:-1]
        if not messages or messages[-1]["role"] != "user":
            raise WorkbookError(f"{path}:{number}: 这段对话里没有要回答的 user 消息。请改正这一行。")
        dialogues.append(messages)
    return dialogues


def ask(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Answer the questions of a file, one JSON object a line."""
    from minimind_core.evaluation.generation import Decoding, generate
    from minimind_core.training.runs import load_run

    dialogues = read_questions(arguments.questions)
    model, tokenizer = load_run(workbook, arguments.run)
    with tqdm(total=len(dialogues), unit="题", disable=None) as bar:
        answers = generate(model, tokenizer, dialogues, Decoding(max_new_tokens=arguments.max_new_tokens), report=bar.update)
    rows = [
        {"question": messages[-1]["content"], "answer": a.text, "new_tokens": a.new_tokens, "ended": a.ended}
        for messages, a in zip(dialogues, answers, strict=True)
    ]
    if arguments.out:
        write_jsonl(arguments.out, rows)
    else:
        print("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return 0


def chat(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Talk with a run in the terminal."""
    from minimind_core.evaluation.generation import Decoding, stream
    from minimind_core.training.runs import load_run

    model, tokenizer = load_run(workbook, arguments.run)
    print(f"和 {arguments.run} 对话：直接输入问题；空行或 Ctrl-D 结束。")
    while True:
        try:
            question = input("问：").strip()
        except EOFError:
            return 0
        if not question:
            return 0
        print("答：", end="")
        shown = ""
        for text in stream(model, tokenizer, [{"role": "user", "content": question}], Decoding(temperature=arguments.temperature)):
            print(text[len(shown) :], end="", flush=True)
            shown = text
        print()


def report(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Build the PDF."""
    from minimind_core.reporting.document import build_report

    print(f"报告：{build_report(workbook, arguments.run)}")
    return 0


def submit(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Build the zip."""
    from minimind_core.reporting.submission import build_submission

    path, missing = build_submission(workbook, arguments.run)
    print(f"压缩包：{path}（{path.stat().st_size / 1e6:.1f} MB）")
    for text in missing:
        print(f"提醒：{text}")
    return 0


def temperature(text: str) -> float:
    """A number from 0 to 5."""
    value = float(text)
    if not 0 <= value <= 5:
        raise argparse.ArgumentTypeError("应在 0 到 5 之间")
    return value


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    parser = argparse.ArgumentParser(prog="minimind", description="MiniMind LoRA 工作簿")
    parser.add_argument("--root", type=Path, help="项目目录（默认从当前目录向上找 workbook.toml）")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="命令")

    def verb(name: str, function, text: str, run: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if run:
            sub.add_argument("--run", default="main", help="运行名（默认 main；base 是基座模型）")
        return sub

    verb("collect", collect, "检查事实表，并与 KdConv 三元组对照", run=False).add_argument(
        "--kdconv", type=Path, nargs="*", default=[], help="KdConv 的 music/*.json"
    )
    sub = verb("build-dataset", build_dataset, "由事实表和身份设定生成训练、验证、测试数据", run=False)
    sub.add_argument("--recipe", choices=["default", *RECIPES], default="default", help="数据配方（默认 default；其余是原始日志里的各版数据）")
    sub.add_argument("--kdconv", type=Path, nargs="*", default=[], help="配方所用的 KdConv music/*.json")
    sub = verb("doctor", doctor, "检查 JSONL 数据文件", run=False)
    sub.add_argument("files", type=Path, nargs="+", help="要检查的文件")
    sub.add_argument("--limit", type=int, default=50, help="最多显示几条")
    sub.add_argument("--fix", type=Path, metavar="OUT", help="把能修的修好，写到另一个文件")
    sub = verb("train", train, "LoRA 微调")
    sub.add_argument("--profile", choices=PROFILES, help="训练规模（默认取 workbook.toml）")
    sub.add_argument("--data", type=Path, help="训练文件（默认 dataset/train.jsonl）")
    sub.add_argument("--resume", action="store_true", help="从中断处继续")
    sub = verb("evaluate", evaluate, "在全部测试题上打分")
    sub.add_argument("--profile", choices=PROFILES, help="题量（默认取 workbook.toml）")
    sub.add_argument("--json", type=Path, help="另存全部分数和回答")
    sub = verb("ask", ask, "回答一个文件里的问题，输出 JSONL")
    sub.add_argument("--questions", type=Path, required=True, help="每行一个问题，或 JSONL")
    sub.add_argument("--out", type=Path, help="输出文件（默认打印）")
    sub.add_argument("--max-new-tokens", type=int, choices=range(1, 513), metavar="1–512", default=64, help="每个回答最多多少词元")
    verb("chat", chat, "在终端里对话").add_argument("--temperature", type=temperature, default=0.0, help="0 为贪心，越大越随机")
    verb("report", report, "生成 PDF 报告")
    verb("submit", submit, "打包要提交的 zip")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; problems that the user can mend are printed in one line, exit status 2."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.function(load_workbook(arguments.root), arguments)
    except WorkbookError as error:
        print(f"错误：{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\n已停止；进度已保存。训练可加 --resume 继续。", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
