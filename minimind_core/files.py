"""Reading tables that people write, and writing files so that an interruption never leaves half of one."""

from __future__ import annotations

import errno
import json
import os
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


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file that a team may have written; an empty table where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkbookError(
            f"{path}: 格式错误（{error}）。文字要用英文双引号括起来，文件存为 UTF-8。"
        ) from error


def merged(package: Any, own: Any) -> Any:
    """Tables merged key by key and lists appended; any other value of the topic replaces the package's."""
    if isinstance(package, dict) and isinstance(own, dict):
        return {**package, **{key: merged(package.get(key), value) for key, value in own.items()}}
    if isinstance(package, list) and isinstance(own, list):
        return [*package, *own]
    return own
