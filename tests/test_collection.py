import json
import socket
import time
from http.server import BaseHTTPRequestHandler

import pytest
from conftest import PROJECT

from minimind_core.collection import sites
from minimind_core.collection.client import Limits, Page, PoliteClient, Refused, decode
from minimind_core.collection.demo_site import PATHS, serving
from minimind_core.collection.facts import Fact, read_facts, write_facts
from minimind_core.collection.kdconv import fetch_kdconv
from minimind_core.errors import WorkbookError

FIELDS = sites.read_fields(PROJECT / "dataset" / "music")
QUICK = Limits(
    delay=0, backoff=0.01, retries=2, timeout=2, max_bytes=20_000, total_seconds=2, allow_private=True
)


class Hostile(BaseHTTPRequestHandler):
    """A site that does what sites do."""

    seen: list[str] = []

    def answer(self, body=b"", status=200, kind="text/html", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.seen.append(self.path)
        path = self.path
        if path == "/robots.txt":
            self.answer(
                b"User-agent: *\nDisallow: /private\nAllow: /private/open\nCrawl-delay: 0.05\n",
                kind="text/plain",
            )
        elif path == "/busy":
            self.answer(b"<h1>ok</h1>") if self.seen.count(path) > 2 else self.answer(
                status=503, Retry_After="0"
            )
        elif path == "/down":
            self.answer(status=503)
        elif path == "/endless":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 4096)
            except OSError:
                pass
        elif path == "/slow":
            time.sleep(5)
        elif path == "/loop":
            self.answer(status=302, Location="/loop2")
        elif path == "/loop2":
            self.answer(status=302, Location="/loop")
        elif path == "/moved":
            self.answer(status=301, Location="/entities")
        elif path == "/to-file":
            self.answer(status=302, Location="file:///etc/passwd")
        elif path == "/to-private":
            self.answer(status=302, Location="/private/x")
        elif path == "/picture":
            self.answer(b"\x89PNG", kind="image/png")
        elif path == "/gone":
            self.answer(status=404)
        elif path == "/entities":
            self.answer(
                "<h1>王&middot;五</h1><table><tr><th>出生地：</th><td>A&amp;B 城</td></tr></table>".encode(),
                kind="text/html; charset=utf-8",
            )
        else:
            self.answer(b"<h1>page</h1>", ETag='"1"') if self.headers.get(
                "If-None-Match"
            ) != '"1"' else self.answer(status=304)

    def log_message(self, *_):
        pass


@pytest.fixture
def hostile(tmp_path):
    Hostile.seen = []
    with serving(Hostile) as site, PoliteClient(tmp_path / "cache", QUICK) as client:
        yield site, client


@pytest.mark.parametrize(("path", "problem"), [
    ("/private/x", "robots"), ("/to-private", "robots"), ("/endless", "超过"), ("/loop", "重定向"), ("/picture", "image/png"), ("/gone", "404"), ("/to-file", "http"),
])  # fmt: skip
def test_what_may_not_be_fetched_is_refused_at_once(hostile, path, problem):
    site, client = hostile
    with pytest.raises(Refused, match=problem):
        client.get(site + path)
    assert Hostile.seen.count(path) <= 1


def test_a_more_specific_allow_wins_and_robots_is_read_once(hostile):
    site, client = hostile
    assert b"page" in client.get(site + "/private/open").content
    client.get(site + "/other")
    assert Hostile.seen.count("/robots.txt") == 1


def test_a_redirected_robots_txt_still_counts(tmp_path):
    class Moved(Hostile):
        def do_GET(self):
            if self.path == "/robots.txt":
                self.answer(status=301, Location="/real-robots.txt")
            elif self.path == "/real-robots.txt":
                self.answer(b"User-agent: *\nDisallow: /", kind="text/plain")
            else:
                self.answer(b"<h1>page</h1>")

    with (
        serving(Moved) as site,
        PoliteClient(tmp_path, QUICK) as client,
        pytest.raises(Refused, match="robots"),
    ):
        client.get(site + "/page")


def test_a_busy_server_is_tried_again_and_a_dead_one_given_up(hostile):
    site, client = hostile
    assert client.get(site + "/busy").content == b"<h1>ok</h1>" and Hostile.seen.count("/busy") == 3
    with pytest.raises(WorkbookError, match="503.*试了 3 次"):
        client.get(site + "/down")


def test_a_silent_server_times_out(tmp_path):
    limits = Limits(delay=0, backoff=0.01, retries=1, timeout=0.2, allow_private=True)
    with (
        serving(Hostile) as site,
        PoliteClient(tmp_path, limits) as client,
        pytest.raises(WorkbookError, match="Timeout"),
    ):
        client.get(site + "/slow")


def test_pages_are_cached_revalidated_and_kept_when_the_server_is_gone(tmp_path):
    Hostile.seen = []
    with serving(Hostile) as site:
        with PoliteClient(tmp_path, QUICK) as client:
            first = client.get(site + "/page")
            assert client.get(site + "/page") == first and Hostile.seen.count("/page") == 1
        stale = Limits(**{**vars(QUICK), "fresh_seconds": -1})
        with PoliteClient(tmp_path, stale) as client:
            assert client.get(site + "/page").content == first.content and Hostile.seen.count("/page") == 2
    with PoliteClient(tmp_path, stale) as client:
        assert client.get(site + "/page").content == first.content


def test_private_addresses_are_refused_also_after_a_redirect(tmp_path, monkeypatch):
    with (
        serving(Hostile) as site,
        PoliteClient(tmp_path, Limits(**{**vars(QUICK), "allow_private": False})) as client,
    ):
        with pytest.raises(Refused, match="内部网络"):
            client.get(site + "/page")
        public, loopback = [(2, 1, 6, "", ("93.184.216.34", 80))], [(2, 1, 6, "", ("127.0.0.1", 80))]
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *_, **__: public if host == "example.org" else loopback
        )
        monkeypatch.setattr(client, "_allowed", lambda url: True)
        redirect = type(
            "Response", (), {"has_redirect_location": True, "headers": {"location": site + "/page"}}
        )()
        monkeypatch.setattr(client, "_try", lambda url, headers: (redirect, b""))
        with pytest.raises(Refused, match="内部网络"):
            client.get("http://example.org/")


def test_requests_to_a_host_keep_their_distance(hostile):
    site, client = hostile
    started = time.monotonic()
    for number in range(3):
        client.get(f"{site}/page{number}")
    assert time.monotonic() - started >= 2 * 0.05  # robots.txt asks for 0.05 s


@pytest.mark.parametrize(("content", "kind", "expected"), [
    ("中文".encode("gbk"), "text/html; charset=gb2312", "中文"), ("<meta charset=gbk>晴天".encode("gbk"), "text/html", "晴天"),
    ("中文".encode(), "text/html", "中文"), ("\ufeff中文".encode(), "", "中文"), ("中文".encode(), "text/html; charset=iso-none", "中文"),
    ("周杰伦".encode("gb18030"), "", "周杰伦"), ("中文".encode(), "text/html; charset=gbk2", "中文"),
])  # fmt: skip
def test_the_charset_is_found(content, kind, expected):
    assert decode(content, kind).endswith(expected)


def test_the_demonstration_site_gives_the_same_facts_by_every_road(tmp_path):
    with serving() as site, PoliteClient(tmp_path, QUICK) as client:
        pages = [client.get(site + path) for path in PATHS]
    found = [{(f.subject, f.attribute): f.value for f in sites.parse_page(page, FIELDS)} for page in pages]
    assert found[0][("林小满", "出生日期")] == found[3][("林小满", "出生日期")] == "1993年5月21日"
    assert found[0][("林小满", "出生地")] == "云州 & 河西" and found[0][("林小满", "英文名")] == "Xiaoman Lin"
    assert found[1] == {
        ("周一诺", "出生日期"): "1990年3月8日",
        ("周一诺", "出生地"): "云州",
        ("周一诺", "经纪公司"): "河西唱片",
    }
    assert found[2] == {("周一诺", "出生日期"): "1990年3月8日", ("周一诺", "本名"): "周依诺"}
    assert found[3][("《满天星》", "发行年份")] == "2015年" and found[3][("《小暑》", "专辑歌手")] == "林小满"
    assert all(
        f.retrieved and f.source_url.startswith("http")
        for page in pages
        for f in sites.parse_page(page, FIELDS)
    )


def page(text: str) -> Page:
    return Page("http://x/", text.encode(), "text/html", "2026-01-01")


@pytest.mark.parametrize(("text", "problem"), [
    ("<p>没有标题</p>", "h1"), ('{"x": 1}', "认不出"), ("{坏", "不是合法的 JSON"), ('{"query": {"pages": [{"title": "甲", "missing": true}]}}', "没有“甲”"),
])  # fmt: skip
def test_pages_without_facts_say_why(text, problem):
    with pytest.raises(WorkbookError, match=problem):
        sites.parse_page(page(text), FIELDS)


def test_the_name_of_an_entity_is_asked_for_at_the_same_site():
    claim = [{"mainsnak": {"datavalue": {"value": {"id": "Q2"}}}}]
    text = json.dumps({"entities": {"Q1": {"labels": {"zh": {"value": "甲"}}, "claims": {"P19": claim}}}})
    assert sites.parse_page(page(text), FIELDS) == []
    asked = []

    def fetch(address):
        asked.append(address)
        return page(json.dumps({"entities": {"Q2": {"id": "Q2", "labels": {"zh": {"value": "云州"}}}}}))

    assert [(f.attribute, f.value) for f in sites.parse_page(page(text), FIELDS, fetch)] == [
        ("出生地", "云州")
    ]
    assert asked == [
        address for address in asked if address.startswith("http://x/w/api.php?") and "ids=Q2" in address
    ]
    assert len(asked) == 1


def test_mediawiki_addresses_are_quoted():
    assert sites.mediawiki_url("https://zh.wikipedia.org/", "周杰伦").endswith(
        "titles=%E5%91%A8%E6%9D%B0%E4%BC%A6"
    )


def test_kdconv_is_downloaded_checked_and_kept(tmp_path):
    body = json.dumps(
        [
            {
                "messages": [
                    {"message": "你好", "attrs": [{"name": "甲", "attrname": "生日", "attrvalue": "一月"}]}
                ]
            }
        ]
    ).encode()

    class Files(Hostile):
        def do_GET(self):
            good = self.path.startswith("/music/")
            self.answer(
                body if good else b"{}", kind="text/plain", status=200 if self.path != "/robots.txt" else 404
            )

    with serving(Files) as site, PoliteClient(tmp_path / "cache", QUICK) as client:
        paths = fetch_kdconv(client, site + "/music/{split}.json", tmp_path / "kdconv")
        assert [p.name for p in paths] == ["train.json", "dev.json", "test.json"] and all(
            p.read_bytes() == body for p in paths
        )
        with pytest.raises(WorkbookError, match="最外层"):
            fetch_kdconv(client, site + "/other/{split}.json", tmp_path / "broken")
        assert not list((tmp_path / "broken").glob("*"))


def test_facts_survive_a_round_trip(tmp_path):
    facts = [Fact("甲,乙", "属性", '他说"好"', "https://example.org/", "2026-01-01")]
    write_facts(tmp_path / "facts.csv", facts)
    assert read_facts(tmp_path / "facts.csv") == facts


def test_values_belong_to_the_name_before_them():
    text = "<h1>甲</h1><dl><dt>星座</dt><dd>双子座</dd><dd>多余</dd><dt>出生地</dt> <dd>云州</dd></dl><table><tr><th colspan=2>标题</th></tr><tr><th>生日</th><td>1990年3月8日</td></tr></table>"
    assert {f.attribute: f.value for f in sites.parse_page(page(text), FIELDS)} == {
        "星座": "双子座",
        "出生地": "云州",
        "出生日期": "1990年3月8日",
    }


def test_a_date_known_only_to_the_year_stays_a_year():
    claim = [{"mainsnak": {"datavalue": {"value": {"time": "+1962-00-00T00:00:00Z", "precision": 9}}}}]
    text = json.dumps({"entities": {"Q1": {"labels": {"zh": {"value": "甲"}}, "claims": {"P569": claim}}}})
    assert [f.value for f in sites.parse_wikidata(page(text), FIELDS)] == ["1962年"]


def test_a_topic_names_fields_of_its_own(tmp_path):
    text = '[names]\n"开国皇帝" = "建立者"\n[wikidata]\nP1 = "都城"\n'
    (tmp_path / "fields.toml").write_text(text, encoding="utf-8")
    fields = sites.read_fields(tmp_path)
    body = "<h1>唐朝</h1><dl><dt>开国皇帝</dt><dd>李渊</dd><dt>歌手</dt><dd>无</dd></dl>"
    assert [(f.attribute, f.value) for f in sites.parse_page(page(body), fields)] == [("建立者", "李渊")]
    assert fields.wikidata["P1"] == "都城" and fields.names["出生地"] == "出生地"
