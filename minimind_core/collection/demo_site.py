"""A small site on loopback with pages written for this project about invented singers, so that collecting
works offline.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ENCYCLOPAEDIA = """<html><head><meta charset="gb2312"><title>林小满</title></head>
<body><h1>林小满（歌手）</h1>
<dl><dt>外文名</dt><dd>Xiaoman Lin</dd><dt>出生日期</dt><dd>1993年05月21日<sup>[1]</sup></dd>
<dt>出 生 地</dt><dd>云州 &amp; 河西</dd>
<dt>毕业院校</dt><dd>云州音乐学院</dd><dt>星 座</dt><dd>双子座</dd></dl>
<p>这一页为演示而写，人物是虚构的。</p></body></html>"""
WIKITEXT = """{{Infobox musical artist
| name = 周一诺
| birth_date = {{birth date|1990|3|8}}
| birth_place = [[云州市|云州]]
| label = {{hlist|[[甲]]|[[乙]]}}
| 经纪公司 = 河西唱片<ref>示例</ref>
}}
'''周一诺'''是为演示虚构的歌手。"""
MEDIAWIKI = {
    "query": {
        "pages": [
            {
                "title": "周一诺",
                "extract": "周一诺是为演示虚构的歌手。",
                "revisions": [{"slots": {"main": {"content": WIKITEXT}}}],
            }
        ]
    }
}
WIKIDATA = {"entities": {"Q1": {"id": "Q1", "labels": {"zh": {"value": "周一诺"}}, "claims": {
    "P1477": [{"mainsnak": {"datavalue": {"value": {"text": "周依诺", "language": "zh"}}}}],
    "P569": [{"mainsnak": {"datavalue": {"value": {"time": "+1990-03-08T00:00:00Z"}}}}],
}}}}  # fmt: skip
MUSICBRAINZ = {
    "name": "林小满", "type": "Person", "life-span": {"begin": "1993-05-21"}, "begin-area": {"name": "云州"},
    "release-groups": [
        {"title": "满天星", "first-release-date": "2015-09-01"},
        {"title": "小暑", "first-release-date": "2018"},
    ],
}  # fmt: skip
PATHS = ("/item/lin", "/w/api.php?action=query&titles=周一诺", "/entity/Q1.json", "/ws/2/artist/1?fmt=json")


class Handler(BaseHTTPRequestHandler):
    """Answers with the pages above; the encyclopaedia is in GB2312 and says so only in its own text."""

    def do_GET(self) -> None:
        """Answer one request."""
        parts = urlsplit(self.path)
        bodies = {
            "/robots.txt": ("text/plain", b"User-agent: *\nDisallow: /private/\n"),
            "/item/lin": ("text/html", ENCYCLOPAEDIA.encode("gb2312")),
            "/entity/Q1.json": ("application/json", json.dumps(WIKIDATA).encode()),
            "/ws/2/artist/1": ("application/json", json.dumps(MUSICBRAINZ).encode()),
        }
        if parts.path == "/w/api.php" and "titles" in parse_qs(parts.query):
            bodies[parts.path] = ("application/json", json.dumps(MEDIAWIKI).encode())
        kind, body = bodies.get(parts.path, ("text/html", b""))
        etag = f'"{len(body)}"'
        fresh = bool(body) and self.headers.get("If-None-Match") == etag
        self.send_response(304 if fresh else 200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", "0" if fresh else str(len(body)))
        self.end_headers()
        if not fresh:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler] = Handler) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1; gives the site's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
