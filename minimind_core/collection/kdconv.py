"""Reader of KdConv's {train,dev,test}.json.

Dialogues and knowledge triples (github.com/thu-coai/KdConv).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minimind_core.collection.client import PoliteClient
from minimind_core.collection.facts import Fact
from minimind_core.errors import WorkbookError
from minimind_core.files import read_json, replacing

KDCONV_ADDRESS = "https://raw.githubusercontent.com/thu-coai/KdConv/master/data/music/{split}.json"
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Triple:
    """Attribute and value of a named thing, as the dialogue's speakers saw it."""

    name: str
    attribute: str
    value: str


@dataclass(frozen=True)
class Dialogue:
    """Messages in order, and the triples that they rest on."""

    messages: tuple[str, ...]
    triples: tuple[Triple, ...]


def read_kdconv(path: Path) -> list[Dialogue]:
    """All dialogues of a file; malformed input is named by its path inside the JSON."""
    items = read_json(path, "请从 KdConv 项目下载 train.json 等文件后再试。")
    if not isinstance(items, list):
        raise WorkbookError(f"{path}: 最外层应是列表。请确认这是 KdConv 的文件。")
    return [read_dialogue(item, f"{path}: [{index}]") for index, item in enumerate(items)]


def fetch_kdconv(client: PoliteClient, address: str, folder: Path) -> list[Path]:
    """Download the three files ({split} in the address) and check that each can be read.

    Returns their paths.
    """
    paths = []
    for split in SPLITS:
        path = folder / f"{split}.json"
        page = client.get(address.replace("{split}", split))
        with replacing(path) as temporary:
            temporary.write_bytes(page.content)
            read_kdconv(temporary)
        paths.append(path)
    return paths


def read_dialogue(item: object, place: str) -> Dialogue:
    """One dialogue of the list."""
    if not isinstance(item, dict) or not isinstance(item.get("messages"), list):
        raise WorkbookError(f"{place}.messages 应是列表。请确认文件没有被改动。")
    messages, triples = [], []
    for index, message in enumerate(item["messages"]):
        if not isinstance(message, dict) or not isinstance(message.get("message"), str):
            raise WorkbookError(f"{place}.messages[{index}].message 应是文字。请确认文件没有被改动。")
        messages.append(message["message"])
        for number, attribute in enumerate(message.get("attrs") or []):
            try:
                triples.append(Triple(attribute["name"], attribute["attrname"], attribute["attrvalue"]))
            except (KeyError, TypeError):
                raise WorkbookError(
                    f"{place}.messages[{index}].attrs[{number}] 缺少 name、attrname 或 attrvalue。"
                ) from None
    return Dialogue(tuple(messages), tuple(triples))


def plain(text: str) -> str:
    """Without marks, spaces, bracketed notes and zero padding, for comparison."""
    text = re.sub(r"（[^）]*）|\([^)]*\)", "", text)
    return re.sub(r"[《》\s省市县区]|(?<!^)中国|中国(?!$)", "", re.sub(r"(?<=[年月])0(?=\d)", "", text))


def compare(facts: Sequence[Fact], triples: Sequence[Triple]) -> list[tuple[Fact, list[str]]]:
    """Facts on whose subject and attribute KdConv speaks too, each with KdConv's values."""
    theirs: dict[tuple[str, str], list[str]] = {}
    for triple in triples:
        values = theirs.setdefault((plain(triple.name), triple.attribute), [])
        if triple.value not in values:
            values.append(triple.value)
    pairs = [(fact, theirs.get((plain(fact.subject), fact.attribute), [])) for fact in facts]
    return [(fact, values) for fact, values in pairs if values]


def agrees(fact: Fact, values: Sequence[str]) -> bool:
    """Whether one of KdConv's values contains ours, or the other way round."""
    own = plain(fact.value)
    return any(own in plain(value) or plain(value) in own for value in values)
