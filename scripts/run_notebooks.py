"""Run all notebooks in order through papermill, in place or in a scratch folder.

    python scripts/run_notebooks.py [--profile smoke|default|full] [--scratch FOLDER] [--only 04 05] [-p
    NAME=VALUE]

Refuses parameters that no notebook knows, fails on errors hidden in widgets and strips volatile metadata.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import sys
import time
from pathlib import Path

import papermill

from minimind_core.config import PROFILES, load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.files import write_text
from minimind_core.reporting.notebooks import execute, known_parameters

PROJECT = Path(__file__).resolve().parents[1]


def make_scratch(folder: Path) -> Path:
    """A project folder of its own, so that a trial never touches the real results.

    Base, facts and texts stay where they are.
    """
    workbook = load_workbook(PROJECT)
    folder = folder.resolve()
    (folder / "report").mkdir(parents=True, exist_ok=True)
    (folder / "dataset").mkdir(exist_ok=True)
    shutil.copytree(PROJECT / "report" / "sections", folder / "report" / "sections", dirs_exist_ok=True)
    if (PROJECT / "dataset" / "questions").is_dir():
        shutil.copytree(
            PROJECT / "dataset" / "questions", folder / "dataset" / "questions", dirs_exist_ok=True
        )
    names = ("report/report.typ", "report/original_runs.json", "dataset/kdconv_sample.json")
    for name in filter(lambda name: (PROJECT / name).is_file(), names):
        shutil.copy(PROJECT / name, folder / name)
    text = (PROJECT / "workbook.toml").read_text(encoding="utf-8")
    for key, path in (("base", workbook.base), ("facts", workbook.facts), ("texts", workbook.texts)):
        text = re.sub(rf'(?m)^{key} = "[^"]*"', lambda _, k=key, p=path: f'{k} = "{p.as_posix()}"', text)
    write_text(folder / "workbook.toml", text)
    return folder


def parse(values: list[str]) -> dict:
    """NAME=VALUE pairs; a value is a Python literal or else text."""
    parameters = {}
    for item in values:
        name, separator, value = item.partition("=")
        if not separator:
            raise WorkbookError(f"-p {item}: 应写成 名字=值。")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    return parameters


def run_all(arguments: argparse.Namespace) -> None:
    """Check the parameters against every notebook, then run."""
    paths = sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if arguments.only:
        paths = [path for path in paths if path.name[:2] in arguments.only]
    known = {path: known_parameters(path) for path in paths}
    parameters = parse(arguments.parameter)
    unknown = parameters.keys() - set().union(*known.values())
    if unknown or not paths:
        raise WorkbookError(
            f"没有笔记本认识参数 {'、'.join(unknown) or arguments.only}。"
            f"可用：{'、'.join(sorted(set().union(*known.values())))}。"
        )
    parameters.setdefault("PROFILE", arguments.profile or load_workbook(PROJECT).profile)
    parameters.setdefault("REUSE", False)  # what a notebook shows it has measured
    root = make_scratch(arguments.scratch) if arguments.scratch else PROJECT
    for path in paths:
        started = time.monotonic()
        print(f"{path.name} …", end="", flush=True)
        own = {name: value for name, value in parameters.items() if name in known[path]}
        execute(path, root / "notebooks" / path.name, own, root)
        print(f" {time.monotonic() - started:.0f} 秒", flush=True)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--only", nargs="*", metavar="NN")
    parser.add_argument("-p", dest="parameter", action="append", default=[], metavar="NAME=VALUE")
    try:
        run_all(parser.parse_args())
    except WorkbookError as error:
        print(f"\n错误：{error}", file=sys.stderr)
        return 2
    except papermill.PapermillExecutionError as error:
        print(f"\n第 {error.cell_index} 个单元格出错：{error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
