"""Parsers of stored bytes.

MediaWiki API, Wikidata entity, encyclopaedia HTML and MusicBrainz pages to fact rows.
"""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from selectolax.lexbor import LexborHTMLParser

from minimind_core.collection.client import Page
from minimind_core.collection.facts import LONGEST_VALUE, Fact
from minimind_core.errors import WorkbookError
from minimind_core.files import merged, read_table


@dataclass(frozen=True)
class Fields:
    """What the fields of pages are called here."""

    names: Mapping[str, str]  # of fact boxes
    wikidata: Mapping[str, str]  # properties
    musicbrainz: Mapping[str, str]
    years: Sequence[str]  # attributes whose value is a year
    dates: Sequence[str]  # attributes whose value is a day


def read_fields(texts: Path) -> Fields:
    """The general names of fields, and those of a topic's fields.toml in its folder of texts."""
    own = tomllib.loads((files(__package__) / "fields.toml").read_text(encoding="utf-8"))
    return Fields(**merged(own, read_table(texts / "fields.toml")))


def tidy(value: str, attribute: str, fields: Fields) -> str:
    """A value without notes and markup; dates as 1979年1月18日, years as 2001年."""
    value = re.sub(r"\[[\d\s\-注]+\]", "", html.unescape(value))
    value = re.sub(r"\s+", " ", value).strip(" 　，,;；")
    date = re.search(r"(\d{4})\s*[年/.\-]\s*0?(\d{1,2})\s*[月/.\-]\s*0?(\d{1,2})", value)
    year = re.search(r"\d{4}", value)
    if attribute in fields.years and year:
        return f"{year[0]}年"
    if date and attribute in fields.dates:
        return f"{date[1]}年{date[2]}月{date[3]}日"
    return value


def make_facts(subject: str, box: Mapping[str, str], page: Page, fields: Fields) -> list[Fact]:
    """Known fields as facts, the first of each attribute; empty and long values are left out."""
    found: dict[str, Fact] = {}
    for name, value in box.items():
        attribute = fields.names.get(re.sub(r"\s", "", name))
        tidied = tidy(value, attribute, fields) if attribute else ""
        if tidied and len(tidied) <= LONGEST_VALUE and attribute not in found:
            found[attribute] = Fact(subject, attribute, tidied, page.url, page.retrieved)
    return list(found.values())


def load_json(page: Page) -> dict[str, Any]:
    """A JSON body, which must be an object."""
    try:
        value = json.loads(page.text)
    except json.JSONDecodeError as error:
        raise WorkbookError(f"{page.url}: 不是合法的 JSON（{error}）。请检查网址。") from error
    if not isinstance(value, dict):
        raise WorkbookError(f"{page.url}: JSON 的最外层应是对象。请检查网址。")
    return value


def mediawiki_url(site: str, title: str) -> str:
    """API address of a page's introduction and wikitext, for example site https://zh.wikipedia.org."""
    query = (
        "action=query&format=json&formatversion=2&redirects=1&prop=extracts%7Crevisions"
        "&exintro=1&explaintext=1&rvprop=content&rvslots=main"
    )
    return f"{site.rstrip('/')}/w/api.php?{query}&titles={quote(title)}"


def plain_wikitext(text: str) -> str:
    """Wikitext without links, templates, references and tags; a date template gives its date."""
    text = re.sub(r"<!--.*?-->|<ref[^>/]*/>|<ref.*?</ref>", "", text, flags=re.DOTALL)
    date = r"\{\{(?:birth date[^|}]*|bd|出生日期[^|}]*|start date)\|(\d{4})\|(\d{1,2})\|(\d{1,2})[^}]*\}\}"
    text = re.sub(date, r"\1年\2月\3日", text, flags=re.IGNORECASE)
    before = None
    while before != text:
        before, text = text, re.sub(r"\{\{[^{}]*\}\}", "", text)
    text = re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", text)
    return re.sub(r"<[^>]+>|'{2,}", " ", text)


def infobox(wikitext: str) -> dict[str, str]:
    """Parameters of the first infobox template; nested templates and links may hold bars."""
    start = re.search(r"\{\{\s*(?:Infobox|[^{}|\n]*信息框)", wikitext, re.IGNORECASE)
    if not start:
        return {}
    depth, parts, last = 0, [], start.start()
    for match in re.compile(r"\{\{|\[\[|\}\}|\]\]|\|").finditer(wikitext, start.start()):
        depth += {"{{": 1, "[[": 1, "}}": -1, "]]": -1}.get(match[0], 0)
        if depth == 1 and match[0] == "|" or depth == 0:
            parts.append(wikitext[last : match.start()])
            last = match.end()
        if depth == 0:
            break
    pairs = (part.split("=", 1) for part in parts[1:] if "=" in part)
    return {name.strip().lower(): plain_wikitext(value) for name, value in pairs}


def parse_mediawiki(page: Page, fields: Fields) -> list[Fact]:
    """Facts of the infobox of each page in an answer to `mediawiki_url`."""
    facts: list[Fact] = []
    for item in load_json(page).get("query", {}).get("pages", []):
        if not isinstance(item, dict):
            raise WorkbookError(
                f"{page.url}: 请在网址里加上 formatversion=2（mediawiki_url 会写出完整的网址）。"
            )
        if item.get("missing") or not item.get("revisions"):
            raise WorkbookError(f"{page.url}: 百科里没有“{item.get('title', '')}”这个条目。请换一个标题。")
        box = infobox(item["revisions"][0]["slots"]["main"]["content"])
        facts += make_facts(item["title"], box, page, fields)
    return facts


def wikidata_value(value: Any, labels: Mapping[str, str]) -> str:
    """A claim's value as text: time, monolingual text, plain text, or the label of another entity."""
    if isinstance(value, str):
        return value
    if "time" in value:
        date = re.sub(r"^\+?(\d{4})-(\d\d)-(\d\d).*", r"\1-\2-\3", value["time"])
        # precision 11 is a day, less only a year or month
        return date if value.get("precision", 11) == 11 else f"{date[:4]}年"
    return value.get("text") or labels.get(value.get("id", ""), "")


LANGUAGES = ("zh-cn", "zh-hans", "zh", "en")  # of names, the best first


def best_label(entity: Mapping[str, Any]) -> str:
    """An entity's name, or its number where it has none."""
    names = entity.get("labels", {})
    return next((names[code]["value"] for code in LANGUAGES if code in names), entity.get("id", ""))


def claimed(entity: Mapping[str, Any], code: str) -> Any:
    """The value of an entity's first claim of a property; None without one."""
    claims = entity.get("claims", {}).get(code) or [{}]
    return claims[0].get("mainsnak", {}).get("datavalue", {}).get("value")


def fetch_labels(page: Page, fields: Fields, fetch: Callable[[str], Page]) -> dict[str, str]:
    """Names of the entities that the claims of a page point to, from the same site."""
    entities = load_json(page).get("entities", {}).values()
    values = [claimed(entity, code) for entity in entities for code in fields.wikidata]
    ids = dict.fromkeys(value["id"] for value in values if isinstance(value, dict) and value.get("id"))
    if not ids:
        return {}
    query = f"action=wbgetentities&format=json&props=labels&languages={quote('|'.join(LANGUAGES))}"
    address = urljoin(page.url, f"/w/api.php?{query}&ids={quote('|'.join(ids))}")
    return {key: best_label(entity) for key, entity in load_json(fetch(address)).get("entities", {}).items()}


def parse_wikidata(page: Page, fields: Fields, labels: Mapping[str, str] | None = None) -> list[Fact]:
    """Facts of entity JSON (Special:EntityData/Q….json); `labels` names the entities that claims point to."""
    facts: list[Fact] = []
    for entity in load_json(page).get("entities", {}).values():
        subject = best_label(entity)
        for code, attribute in fields.wikidata.items():
            raw = claimed(entity, code)
            value = tidy(wikidata_value(raw, labels or {}), attribute, fields) if raw else ""
            if value and len(value) <= LONGEST_VALUE:
                facts.append(Fact(subject, attribute, value, page.url, page.retrieved))
    return facts


def parse_encyclopaedia(page: Page, fields: Fields) -> list[Fact]:
    """Facts of an encyclopaedia page whose fact box is a list of <dt> and <dd> (or a table of <th> and
    <td>).
    """
    tree = LexborHTMLParser(page.text)
    for node in tree.css("script, style, sup"):
        node.decompose()
    title = tree.css_first("h1")
    if title is None:
        raise WorkbookError(f"{page.url}: 页面里没有 <h1> 标题，认不出条目名。请换一个页面。")
    subject = re.sub(r"\s*[（(].*$", "", title.text(strip=True))
    box: dict[str, str] = {}
    for name in tree.css("dt, th"):
        value = name.next
        while value is not None and value.tag in ("-text", "-comment"):
            value = value.next
        if value is not None and value.tag in ("dd", "td"):
            box.setdefault(name.text(strip=True).rstrip("：:"), value.text(separator=" ", strip=True))
    return make_facts(subject, box, page, fields)


def musicbrainz_fields(value: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(subject, field, value) of an artist with its release groups, or of a release group."""
    if value.get("type") in ("Person", "Group") or "life-span" in value:
        yield value["name"], "begin", (value.get("life-span") or {}).get("begin") or ""
        yield value["name"], "place", (value.get("begin-area") or {}).get("name") or ""
    groups = value.get("release-groups", [value] if "first-release-date" in value else [])
    for group in groups:
        yield f"《{group['title']}》", "date", group.get("first-release-date", "")
        artist = "".join(credit.get("name", "") for credit in group.get("artist-credit", [])) or value.get(
            "name", ""
        )
        yield f"《{group['title']}》", "credit", artist


def parse_musicbrainz(page: Page, fields: Fields) -> list[Fact]:
    """Facts of /ws/2/artist/…?fmt=json&inc=release-groups or /ws/2/release-group/…."""
    facts = []
    for subject, field, value in musicbrainz_fields(load_json(page)):
        attribute = fields.musicbrainz.get(field, "")
        if attribute and (tidied := tidy(value, attribute, fields)):
            facts.append(Fact(subject, attribute, tidied, page.url, page.retrieved))
    return facts


def parse_page(page: Page, fields: Fields, fetch: Callable[[str], Page] | None = None) -> list[Fact]:
    """Recognise the kind of a page by its content, and parse it.

    With `fetch` the names of Wikidata's places, schools and so on are asked for; without it they are left
    out.
    """
    if not page.text.lstrip().startswith("{"):
        return parse_encyclopaedia(page, fields)
    value = load_json(page)
    if "query" in value:
        return parse_mediawiki(page, fields)
    if "entities" in value:
        return parse_wikidata(page, fields, fetch_labels(page, fields, fetch) if fetch else {})
    if "life-span" in value or "first-release-date" in value:
        return parse_musicbrainz(page, fields)
    raise WorkbookError(f"{page.url}: 认不出这种 JSON。支持 MediaWiki API、Wikidata 实体和 MusicBrainz。")
