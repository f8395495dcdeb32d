"""workbook.toml as pydantic models, and its problems as sentences with file, line and remedy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from minimind_core.errors import WorkbookError
from minimind_core.files import parse_toml
from minimind_core.mixture import RENAMED, Draws, Mix

Text = Annotated[str, Field(strict=True, min_length=1, pattern=r"\S")]
Texts = Annotated[list[Text], Field(min_length=1)]
# keys of [project] that have another name now
OLD_PROJECT = {"artists": "subjects"}
# pydantic's error types: what the value should be
EXPECTED = {
    "string_type": "非空的文字，写在英文双引号里",
    "string_too_short": "非空的文字",
    "string_pattern_mismatch": "非空的文字",
    "list_type": "非空的列表，写在方括号里",
    "too_short": "非空的列表",
    "int_type": "整数，不加引号",
    "float_type": "数，不加引号",
    "bool_type": "true 或 false",
    "bool_parsing": "true 或 false",
    "greater_than_equal": "数，不能是负数或太小",
}


class Section(BaseModel):
    """A table of the file, without unknown keys."""

    model_config = ConfigDict(extra="forbid")


class PersonaSection(Section):
    """[persona]"""

    name: Text


class ProjectSection(Section):
    """[project]"""

    team: Text
    members: Texts
    course: Text
    topic: Text
    subjects: Texts
    # on the cover, where they are given
    class_name: str = Field("", alias="class")
    date: str = ""
    student_ids: list[str] = []


class DataSection(Section):
    """[data]"""

    facts: Text
    texts: Text = "dataset/texts"


class TrainingSection(Section):
    """[training]"""

    profile: Text
    base: Text
    seed: StrictInt


class ShowSection(Section):
    """[show]"""

    questions: Texts


class Settings(Section):
    """The whole file."""

    persona: PersonaSection
    project: ProjectSection
    data: DataSection
    mix: Mix
    draws: Draws = Field(default_factory=Draws)
    training: TrainingSection
    show: ShowSection


def read_settings(path: Path) -> Settings:
    """Read and check workbook.toml; keys of older versions are still read."""
    raw = path.read_bytes()
    values = parse_toml(path, raw)
    text = raw.decode("utf-8-sig")
    if not values:
        raise WorkbookError(f"{path}: 文件是空的。请从压缩包或仓库里重新复制一份 workbook.toml。")
    rename_old_keys(path, values)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise WorkbookError("\n".join(sentence(path, text, item) for item in error.errors())) from None


def rename_old_keys(path: Path, values: dict[str, Any]) -> None:
    """Put the keys of older versions under today's names."""
    if isinstance(values.get("mix"), dict):
        values["mix"] = {RENAMED.get(k, k): v for k, v in values["mix"].items() if RENAMED.get(k, k)}
    project = values.get("project")
    for old, new in OLD_PROJECT.items():
        if isinstance(project, dict) and old in project and new not in project:
            project[new] = project.pop(old)
            logging.getLogger(__name__).warning(
                "%s: [project] %s 现在叫 %s，请改名；这次照旧读取。", path, old, new
            )


def line_of(text: str, section: str, key: str = "") -> int:
    """Number of the line of a section, or of a key in it; 1 if it is not there."""
    found, current = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.split("]")[0].strip("[] ")
            if current == section:
                found = number
        elif key and current == section and stripped.split("=")[0].strip() == key:
            return number
    return found


def sentence(path: Path, text: str, problem: dict[str, Any]) -> str:
    """One of pydantic's problems for people: file, line, what is wrong, what to do."""
    section, *keys = map(str, problem["loc"])
    kind, value = problem["type"], problem.get("input")
    if not keys:
        known = "、".join(Settings.model_fields)
        if kind == "extra_forbidden":
            return f"{path}:{line_of(text, section)}: 不认识的小节 [{section}]。可用的是 {known}。"
        if kind == "value_error":
            return f"{path}:{line_of(text, section)}: [{section}] 的数不合适：{problem['ctx']['error']}"
        return f"{path}: 缺少小节 [{section}]，或它不是一个小节。请照原来的文件补上。"
    old = [name for name, new in {**RENAMED, **OLD_PROJECT}.items() if new == keys[0]]
    written = [name for name in old if line_of(text, section, name) != line_of(text, section)]
    keys = [*written, *keys]  # as the file has it
    place = f"{path}:{line_of(text, section, keys[0])}: [{section}]"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        model: Any = Settings.model_fields[section].annotation
        fields = getattr(model, "model_fields", None) or model.__dataclass_fields__
        known = [getattr(field, "alias", None) or name for name, field in fields.items()]
        return f"{place} 里不认识 {keys[0]}。可用的是 {'、'.join(known)}。"
    if kind == "missing":
        return f"{place} 里没有 {keys[0]}。请补上。"
    wanted = EXPECTED.get(kind, problem["msg"])
    quoted = kind in ("int_type", "float_type") and isinstance(value, str)
    remedy = "请去掉引号" if quoted else "请改正"
    return f"{place} {keys[0]} 应是{wanted}，实际为 {value!r}。{remedy}。"
