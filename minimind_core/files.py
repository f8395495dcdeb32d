"""Reading files that people write, and writing so that an interruption never leaves half a file."""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it over `path` on success, delete it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except PermissionError as error:
        raise WorkbookError(f"{path}: 没有写入权限，或文件正被别的程序打开。请关闭它后重试。") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise WorkbookError(
                f"{path}: 磁盘空间不足，未写入（原文件未改动）。请清理磁盘后重试。"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented UTF-8 JSON atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def decoded(path: Path, raw: bytes) -> str:
    """UTF-8 text, with or without a byte order mark; another encoding is named with its line."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise WorkbookError(f"{path}:{line}: 不是 UTF-8 编码。请用编辑器另存为 UTF-8。") from error


def read_text(path: Path) -> str:
    """The text of a file; empty where there is none."""
    return decoded(path, path.read_bytes()) if path.is_file() else ""


def read_json(path: Path, remedy: str = "请恢复或重新生成这个文件。") -> Any:
    """The value of a JSON file; one that is missing or damaged is named, with what to do."""
    if not path.is_file():
        raise WorkbookError(f"{path}: 找不到这个文件。{remedy}")
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise WorkbookError(f"{path}:{error.lineno}: 不是合法的 JSON（{error.msg}）。{remedy}") from error


def read_record(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is none."""
    return read_json(path) if path.is_file() else {}


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers and values of a JSONL file, blank lines left out; nothing where there is no file."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise WorkbookError(f"{path}:{number}: 这一行不是合法的 JSON。请改正。") from error


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file that a team may have written; an empty table where there is none."""
    return parse_toml(path, path.read_bytes()) if path.is_file() else {}


def parse_toml(path: Path, raw: bytes) -> dict[str, Any]:
    """The tables of a TOML file; a mistake is named with its line and the likely remedy."""
    text = decoded(path, raw)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise WorkbookError(f"{path}:{line}: {toml_problem(text.split(chr(10))[line - 1], error)}") from error


def toml_problem(line: str, error: tomllib.TOMLDecodeError) -> str:
    """What is wrong with a line of TOML, in Chinese."""
    if re.search("[“”‘’]", line):
        return '用了中文引号“”。请换成英文引号 "。'
    if re.search("[，：＝［］]", line):
        return "用了中文的逗号、冒号、等号或方括号。请换成英文的。"
    if "overwrite" in str(error) or "twice" in str(error):
        return "同一个名字写了两次。请留一个。"
    return f"格式不对：“{line.strip()[:40]}”。文字要用英文双引号括起来，一行写一个 名字 = 值。"


def merged(package: Any, own: Any) -> Any:
    """Tables merged key by key and lists appended; any other value of the topic replaces the package's."""
    if isinstance(package, dict) and isinstance(own, dict):
        return {**package, **{key: merged(package.get(key), value) for key, value in own.items()}}
    if isinstance(package, list) and isinstance(own, list):
        return [*package, *own]
    return own
