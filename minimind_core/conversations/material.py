"""The texts that rows are made of: the package's data folder, and a topic's own files of the same names."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError


@cache
def data_text(name: str) -> str:
    """Content of a file in this package's data folder."""
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")


@cache
def data_table(name: str) -> dict[str, Any]:
    """A TOML file of the data folder, without its ending."""
    return tomllib.loads(data_text(f"{name}.toml"))


def merged(package: Any, own: Any) -> Any:
    """Tables merged key by key and lists appended; any other value of the topic replaces the package's."""
    if isinstance(package, dict) and isinstance(own, dict):
        return {**package, **{key: merged(package.get(key), value) for key, value in own.items()}}
    if isinstance(package, list) and isinstance(own, list):
        return [*package, *own]
    return own


@dataclass(frozen=True)
class Material:
    """The package's texts together with those of a topic's folder."""

    folder: Path

    def own_text(self, name: str) -> str:
        """Content of the topic's file; empty where there is none."""
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise WorkbookError(f"{path}: 不是 UTF-8 编码。请另存为 UTF-8。") from error

    def lines(self, name: str) -> list[str]:
        """Lines of a text or JSONL file, the package's first, blank ones left out."""
        text = f"{data_text(name)}\n{self.own_text(name)}"
        return [line for line in text.split("\n") if line.strip()]

    def table(self, name: str) -> dict[str, Any]:
        """A TOML file, without its ending."""
        try:
            own = tomllib.loads(self.own_text(f"{name}.toml"))
        except tomllib.TOMLDecodeError as error:
            path = self.folder / f"{name}.toml"
            raise WorkbookError(f"{path}: 格式错误（{error}）。文字要用英文双引号括起来。") from error
        return merged(data_table(name), own)
