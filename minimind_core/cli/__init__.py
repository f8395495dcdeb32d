"""The `minimind` command: one verb a stage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from minimind_core.collection.kdconv import KDCONV_ADDRESS
from minimind_core.config import PROFILES, Workbook, load_workbook
from minimind_core.conversations.recipes import RECIPES
from minimind_core.errors import WorkbookError


def deferred(module: str, name: str) -> Callable[[Workbook, argparse.Namespace], int]:
    """A verb whose module is loaded only when it runs: --help must not wait for torch."""

    def run(workbook: Workbook, arguments: argparse.Namespace) -> int:
        return getattr(import_module(f"minimind_core.cli.{module}"), name)(workbook, arguments)

    return run


def number(low: float, high: float, kind: type = float) -> Callable[[str], float]:
    """A reader of numbers of a kind in a range, for argparse."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"应是 {low:g} 到 {high:g} 之间的{'整' if kind is int else ''}数"
            )
        return value

    return read


Verb = Callable[..., argparse.ArgumentParser]


def add_data_verbs(verb: Verb) -> None:
    """Verbs that make and check data."""
    sub = verb("collect", "data", "检查事实表，抓取网页，与 KdConv 三元组对照", run=False)
    sub.add_argument(
        "--url",
        nargs="+",
        help="百科、MediaWiki API、Wikidata 或 MusicBrainz 的网址；结果写到 dataset/raw/collected.csv",
    )
    sub.add_argument("--kdconv", type=Path, nargs="*", default=[], help="KdConv 的 *.json")
    sub.add_argument(
        "--fetch-kdconv",
        nargs="?",
        const=KDCONV_ADDRESS,
        metavar="ADDRESS",
        help="先下载 KdConv；地址里的 {split} 换成 train、dev、test",
    )
    sub = verb("build-dataset", "data", "由事实表和身份设定生成训练、验证、测试数据", run=False)
    sub.add_argument(
        "--recipe",
        choices=["default", *RECIPES],
        default="default",
        help="数据配方（默认 default；其余是原始日志里的各版数据）",
    )
    sub.add_argument("--kdconv", type=Path, nargs="*", default=[], help="配方所用的 KdConv *.json")
    sub = verb("doctor", "data", "检查 JSONL 数据文件", run=False)
    sub.add_argument("files", type=Path, nargs="+", help="要检查的文件")
    sub.add_argument("--limit", type=int, default=50, help="最多显示几条")
    sub.add_argument("--json", type=Path, help="另存各文件每种问题的条数")
    sub.add_argument("--fix", type=Path, metavar="OUT", help="先转成标准的 JSONL，写到另一个文件")
    sub = verb("import", "data", "把别的程序的数据（Alpaca、ShareGPT、Excel……）转成对话 JSONL", run=False)
    sub.set_defaults(function=deferred("data", "import_data"))
    sub.add_argument("file", type=Path, help="JSON、JSONL、CSV、Excel 或“问：/答：”文字")
    sub.add_argument("--out", type=Path, help="输出文件（默认在旁边写 原名_imported.jsonl）")


def add_experiment_options(sub: argparse.ArgumentParser) -> None:
    """How large an experiment is, and on what."""
    sub.add_argument(
        "--size",
        choices=("default", "full"),
        default="default",
        help="default 缩小数据；full 与原始日志一样大",
    )
    sub.add_argument(
        "--kdconv",
        type=Path,
        nargs="*",
        default=[],
        help="KdConv 的 *.json（默认 dataset/raw/kdconv，没有就用小样本）",
    )


def add_check_option(sub: argparse.ArgumentParser) -> None:
    """The switch of the claim check."""
    sub.add_argument("--no-check", action="store_true", help="不核对，原样给出模型的话")


def add_model_verbs(verb: Verb) -> None:
    """Verbs that train and score."""
    sub = verb("train", "models", "LoRA 微调")
    sub.add_argument("--profile", choices=PROFILES, help="训练规模（默认取 workbook.toml）")
    sub.add_argument("--data", type=Path, help="训练文件（默认 dataset/train.jsonl）")
    sub.add_argument("--seed", type=int, help="随机种子（默认取 workbook.toml）")
    sub.add_argument("--resume", action="store_true", help="从中断处继续")
    sub.add_argument("--device", help="cuda、mps 或 cpu（默认自动选择）")
    sub.add_argument(
        "--threads", type=number(1, 256, int), metavar="N", help="CPU 线程数（默认由 PyTorch 决定）"
    )
    sub.add_argument(
        "--track", choices=("tensorboard", "wandb", "swanlab"), help="同时记录到这个工具；metrics.csv 总会写"
    )
    sub.add_argument(
        "--experiment",
        metavar="NAME",
        help="按 experiments.toml 里的一项训练并打分，运行名就是它；minimind experiments 列出全部",
    )
    add_experiment_options(sub)
    add_experiments_verb(verb)
    sub = verb("evaluate", "models", "在全部测试题上打分")
    sub.add_argument("--profile", choices=PROFILES, help="题量（默认取 workbook.toml）")
    sub.add_argument("--json", type=Path, help="另存全部分数和回答")
    verb("runs", "models", "列出全部运行的设置和得分，另存 report/results/runs.csv", run=False)


def add_experiments_verb(verb: Verb) -> None:
    """The verb for many experiments."""
    sub = verb("experiments", "experiments", "成批运行实验；已有且没有变动的不重跑", run=False)
    sub.add_argument("names", nargs="*", metavar="NAME", help="实验名或组名；不写就列出全部")
    sub.add_argument("--jobs", type=number(1, 64, int), default=1, metavar="N", help="同时运行几个进程")
    sub.add_argument(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="Dask 调度器的地址，例如 tcp://10.0.0.1:8786；各机器共享项目目录",
    )
    add_experiment_options(sub)


def add_talk_verbs(verb: Verb) -> None:
    """Verbs that answer questions."""
    sub = verb("ask", "models", "回答一个文件里的问题，输出 JSONL")
    sub.add_argument("--questions", type=Path, required=True, help="每行一个问题，或 JSONL")
    sub.add_argument("--out", type=Path, help="输出文件（默认打印）")
    sub.add_argument("--max-new-tokens", type=number(1, 512, int), default=128, help="每个回答最多多少词元")
    add_check_option(sub)
    sub = verb("chat", "models", "在终端里对话")
    sub.add_argument("--temperature", type=number(0, 5), default=0.0, help="0 为贪心，越大越随机")
    add_check_option(sub)
    sub = verb("show", "show", "课堂展示的网页（Voilà），在本机浏览器里打开")
    sub.add_argument("--port", type=int, default=8866, help="端口（默认 8866）")
    sub.add_argument("--no-browser", action="store_true", help="不自动打开浏览器")

    sub = verb("serve", "serve", "OpenAI 兼容的接口，给 Open WebUI、Chatbox 等程序用")
    sub.add_argument("--host", default="127.0.0.1", help="地址（默认只有本机能连）")
    sub.add_argument("--port", type=int, default=8000, help="端口（默认 8000）")
    sub.add_argument("--api-key", default="", metavar="KEY", help="要求客户端出示这个密钥")


def add_exchange_verbs(verb: Verb) -> None:
    """Verbs that take and give weights."""
    sub = verb("export", "models", "导出成别的程序能用的格式")
    sub.add_argument(
        "--format",
        metavar="FORMAT",
        required=True,
        help="hf（transformers）、peft、pth（MiniMind）、gguf 或 gguf-q8",
    )
    sub.add_argument("--out", type=Path, help="输出文件夹（默认 out/运行名_格式）")
    sub = verb("download", "models", "下载官方 MiniMind 权重", run=False)
    sub.add_argument("name", choices=("minimind2-small", "minimind2", "minimind-3"), help="要下载的模型")
    sub.add_argument(
        "--from",
        dest="source",
        choices=("modelscope", "huggingface"),
        default="modelscope",
        help="来源（默认 modelscope）",
    )


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    parser = argparse.ArgumentParser(prog="minimind", description="MiniMind LoRA 工作簿")
    parser.add_argument("--root", type=Path, help="项目目录（默认从当前目录向上找 workbook.toml）")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="命令")

    def verb(name: str, module: str, text: str, run: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(function=deferred(module, name.replace("-", "_")))
        if run:
            sub.add_argument("--run", default="main", help="运行名（默认 main；base 是基座模型）")
        return sub

    add_data_verbs(verb)
    add_model_verbs(verb)
    add_talk_verbs(verb)
    add_exchange_verbs(verb)
    verb("report", "reports", "生成 PDF 报告")
    verb("demo", "reports", "录制运行示例.mp4：模型回答课堂展示的问题")
    sub = verb("submit", "reports", "打包要提交的 zip；还不能交时说明原因")
    sub.add_argument("--draft", action="store_true", help="有占位文字等问题也先打一个包看看")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; problems that the user can mend are printed in one line, exit status 2."""
    arguments = build_parser().parse_args(argv)
    try:
        status = arguments.function(load_workbook(arguments.root), arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `minimind ... | head` has read enough; what is left to say at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except WorkbookError as error:
        print(f"错误：{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "进度已保存，加 --resume 继续。" if arguments.verb == "train" else ""
        print(f"\n已停止。{hint}", file=sys.stderr)
        return 130
