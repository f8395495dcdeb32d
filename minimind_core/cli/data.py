"""Verbs that make and check data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from minimind_core.collection.client import PoliteClient
from minimind_core.collection.facts import Fact, read_facts, write_facts
from minimind_core.collection.kdconv import agrees, compare, fetch_kdconv, read_kdconv
from minimind_core.collection.sites import parse_page, read_fields
from minimind_core.config import PROFILES, Workbook
from minimind_core.conversations.doctor import Capacity, capacity, examine, leak_findings, summarize
from minimind_core.conversations.mixing import book_of, dataset_file, write_dataset
from minimind_core.conversations.recipes import RECIPES, build_recipe
from minimind_core.conversations.repairing import convert_file
from minimind_core.conversations.schema import read_conversations
from minimind_core.conversations.wordings import wordings_template
from minimind_core.errors import WorkbookError
from minimind_core.files import write_json


def collect(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Check facts.csv, fetch pages or KdConv, and compare with KdConv's triples where both speak."""
    if arguments.url:
        return collect_pages(workbook, arguments.url)
    if arguments.fetch_kdconv:
        with PoliteClient(workbook.dataset / "raw" / "cache") as client:
            arguments.kdconv = fetch_kdconv(
                client, arguments.fetch_kdconv, workbook.dataset / "raw" / "kdconv"
            )
    facts = read_facts(workbook.facts)
    print(f"{workbook.facts}: {len(facts)} 条事实，{len({f.subject for f in facts})} 个对象，格式正确。")
    for path in arguments.kdconv:
        dialogues = read_kdconv(path)
        triples = [triple for dialogue in dialogues for triple in dialogue.triples]
        print(
            f"{path}: {len(dialogues)} 段对话，{sum(len(d.messages) for d in dialogues)} "
            f"条消息，{len(set(triples))} 个三元组。"
        )
        for fact, values in compare(facts, triples):
            print(
                f"  {'一致' if agrees(fact, values) else '不同'}：{fact.subject} "
                f"{fact.attribute}：{fact.value}｜KdConv：{'、'.join(values)}"
            )
    return 0


def collect_pages(workbook: Workbook, addresses: list[str]) -> int:
    """Facts of web pages, to dataset/raw/collected.csv: a person reads them before they go into facts.csv."""
    found: list[Fact] = []
    with PoliteClient(workbook.dataset / "raw" / "cache") as client:
        for address in addresses:
            facts = parse_page(client.get(address), read_fields(workbook.texts), client.get)
            found += facts
            print(f"{address}: {len(facts)} 条事实")
    path = workbook.dataset / "raw" / "collected.csv"
    write_facts(path, found)
    print(f"{path}: 共 {len(found)} 条。请核对后抄进 {workbook.facts.name}。")
    return 0


def build_dataset(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Facts and persona to dataset/*.jsonl, or one of the log's recipes to dataset/raw/."""
    if arguments.recipe != "default":
        path, rows = build_recipe(workbook, arguments.recipe, arguments.kdconv)
        print(f"{path}: {rows} 行（{RECIPES[arguments.recipe][0]}）")
        return 0
    for name, rows in write_dataset(workbook).items():
        print(f"{dataset_file(workbook, name)}: {rows} 行")
    book = book_of(workbook, read_facts(workbook.facts))
    if names := book.without_own():
        print(f"这些属性没有专门的问法，用的是通用问法：{'、'.join(names)}。")
        print(f"想问得更自然，就把下面的样子填好，写进 {workbook.wordings}：\n")
        print("\n".join(wordings_template(name, book[name].kind) for name in names))
    return 0


def doctor(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Examine JSONL files; exit status 1 when errors remain."""
    from minimind_core.modeling.checkpoint import load_base
    from minimind_core.modeling.lora import lora_size
    from minimind_core.modeling.tokenizer import count_tokens

    model, tokenizer = load_base(workbook.base)
    if arguments.fix:
        arguments.files = [repair(workbook, arguments.files, arguments.fix)]
    findings = []
    for path in tqdm(arguments.files, desc="检查", unit="个文件", disable=None):
        findings += examine(
            path,
            lambda rows: count_tokens(tokenizer, [row.messages for row in rows]),
            own=workbook.persona.name,
        )
    train = dataset_file(workbook, "train")
    for path in arguments.files if train.is_file() else ():
        if path.stem.endswith("_test"):
            findings += leak_findings(path, read_conversations(train))
    for finding in findings[: arguments.limit]:
        print(finding)
    errors = sum(finding.error for finding in findings)
    if arguments.json:
        write_json(arguments.json, summarize(arguments.files, findings))
    print(f"共 {errors} 个错误，{len(findings) - errors} 个提醒。")
    profile = PROFILES[workbook.profile]
    for path in [path for path in arguments.files if path.stem == "train" and not errors]:
        rows = read_conversations(path)
        print_capacity(path, capacity(rows, lora_size(profile.lora, model.config), profile.epochs))
    return 1 if errors else 0


def repair(workbook: Workbook, files: Sequence[Path], out: Path) -> Path:
    """Write the one file's usable rows as JSONL to `out`, and say what became of the rest."""
    if len(files) != 1:
        raise WorkbookError("--fix 一次修一个文件，并且要写到另一个文件名。")
    print_conversion(files[0], out)
    print("下面是新文件里还剩的问题。")
    return out


def print_conversion(path: Path, out: Path) -> bool:
    """Convert a file, and tell what it was, what was changed and which rows could not be used."""
    imported = convert_file(path, out)
    dropped = len(imported.problems)
    print(f"{path}: {'，'.join(imported.faults()) or '已是标准的 JSONL'}。")
    for change, lines in imported.changes.items():
        print(f"{path}:{lines[0]}: {change.what}（共 {len(lines)} 行）。")
    for broken in imported.problems:
        print(f"{path}:{broken.line}: 没有写进新文件：{broken.what}。{broken.remedy}。")
    print(f"{out}: 写了 {len(imported.rows)} 行，去掉 {dropped} 行；原文件没有改动。")
    return dropped == 0


def import_data(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Convert a training file of another program; exit status 1 when rows could not be used."""
    out = arguments.out or arguments.file.with_name(f"{arguments.file.stem}_imported.jsonl")
    return 0 if print_conversion(arguments.file, out) else 1


def print_capacity(path: Path, meter: Capacity) -> None:
    """How much the answers of a training file are for the adapter."""
    size = f"回答约 {meter.bits:,} 比特，适配器 {meter.parameters:,} 个参数，占容量的 {meter.load:.0%}。"
    print(f"{path}: {size}")
    print(f"最少见的事实全程出现 {meter.fewest} 次。")
    print("".join(f"提醒：{text}\n" for text in meter.warnings()), end="")
