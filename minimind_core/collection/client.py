"""A polite HTTP client.

Robots.txt, an honest User-Agent, a pause per host, retries, limits and a disk cache.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import re
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
from charset_normalizer import from_bytes
from protego import Protego

from minimind_core.errors import WorkbookError
from minimind_core.files import replacing, write_json

USER_AGENT = "minimind-lora-workbook/1.0 (course project; a few pages only)"
# what local proxies answer in place of every host's address
PROXY_ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
RETRIED = (429, 500, 502, 503, 504)
ALLOWED_TYPES = ("text/html", "application/xhtml+xml", "application/json", "text/plain")


@dataclass(frozen=True)
class Limits:
    """What the client is willing to do."""

    delay: float = 1.0  # least seconds between two requests to a host; robots.txt may ask for more
    retries: int = 3  # further tries after a refusal or failure
    backoff: float = 1.0  # seconds before the first further try, doubled each time
    timeout: float = 10.0  # seconds for connecting and for each read
    total_seconds: float = 60.0  # for one body
    max_bytes: int = 20_000_000
    max_redirects: int = 5
    fresh_seconds: float = 86_400.0  # age under which a cached page is used without asking the server
    allow_private: bool = False  # loopback and private addresses: only for a site of one's own


@dataclass(frozen=True)
class Page:
    """A fetched body, the address that it finally came from, and the ISO date of fetching."""

    url: str
    content: bytes
    content_type: str
    retrieved: str

    @property
    def text(self) -> str:
        """The body decoded."""
        return decode(self.content, self.content_type)


def decode(content: bytes, content_type: str = "") -> str:
    """Text of a body.

    Byte-order mark, then the header's charset, then a <meta> tag's, UTF-8, GB18030, a guess.
    """
    if content.startswith(b"\xef\xbb\xbf"):
        return content.decode("utf-8-sig", "replace")
    named = re.search(r"charset=[\"']?([\w\-]+)", content_type)
    meta = re.search(rb"<meta[^>]*charset=[\"']?([\w\-]+)", content[:4096], re.IGNORECASE)
    declared = [named[1] if named else "", meta[1].decode() if meta else ""]
    wider = ["gb18030" if name.lower() in ("gb2312", "gbk") else name for name in declared if name]
    for name in (*wider, "utf-8", "gb18030"):
        try:
            return content.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return str(from_bytes(content).best() or content.decode("utf-8", "replace"))


class Refused(WorkbookError):
    """A page that may not or cannot be fetched; trying again does not help."""


class NotThere(Refused):
    """The server answers that there is no such page (4xx)."""


@dataclass
class PoliteClient:
    """Fetches pages one after the other; use as a context manager."""

    cache: Path
    limits: Limits = field(default_factory=Limits)
    requests: int = 0  # sent so far, robots.txt included

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            timeout=self.limits.timeout,
            headers={"User-Agent": USER_AGENT, "Accept-Language": "zh-CN,zh;q=0.9"},
            trust_env=True,
        )
        self.next_time: dict[str, float] = {}
        self.robots: dict[str, Protego | None] = {}

    def __enter__(self) -> PoliteClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, url: str) -> Page:
        """The page, from the cache while that is fresh.

        A stale copy is revalidated, and used when the server is gone.
        """
        stored, age = self._cached(url)
        if stored and age < self.limits.fresh_seconds:
            return stored
        known = json.loads(self._place(url, "json").read_text(encoding="utf-8")) if stored else {}
        headers = {
            name: known[key]
            for name, key in (("If-None-Match", "etag"), ("If-Modified-Since", "modified"))
            if known.get(key)
        }
        try:
            response, content = self._follow(url, headers)
        except Refused:
            raise
        except WorkbookError:
            if stored:
                return stored
            raise
        if response.status_code == 304 and stored:
            self._place(url, "json").touch()
            return stored
        page = Page(
            str(response.url),
            content,
            response.headers.get("content-type", ""),
            datetime.date.today().isoformat(),
        )
        self._store(url, page, response)
        return page

    def _follow(self, url: str, headers: dict[str, str], robots: bool = True) -> tuple[httpx.Response, bytes]:
        """Request with redirects, each of which is checked as the first address was.

        Robots.txt itself asks no robots.txt.
        """
        seen = [url]
        while True:
            self._check_address(url)
            if robots and not self._allowed(url):
                raise Refused(f"{url}: 这个网站的 robots.txt 不允许抓取。请换一个来源，或手工填写。")
            response, content = self._try(url, headers)
            if not response.has_redirect_location:
                return response, content
            url = urljoin(url, response.headers["location"])
            if url in seen or len(seen) > self.limits.max_redirects:
                raise Refused(f"{seen[0]}: 重定向次数过多或形成循环。请检查网址。")
            seen.append(url)

    def _try(self, url: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        """One address, with retries; statuses other than success, redirect and 304 raise."""
        reason, wait = "", 0.0
        for attempt in range(self.limits.retries + 1):
            time.sleep(wait)
            wait = self.limits.backoff * 2**attempt
            try:
                response, content = self._request(url, headers)
            except httpx.HTTPError as error:
                reason = f"连接失败（{type(error).__name__}）"
                continue
            if response.status_code not in RETRIED:
                if response.is_success or response.has_redirect_location or response.status_code == 304:
                    return response, content
                raise NotThere(f"{url}: 服务器回答 {response.status_code}。请检查网址是否正确。")
            reason = f"服务器回答 {response.status_code}"
            asked = response.headers.get("retry-after", "")
            wait = min(60.0, float(asked)) if asked.isdigit() else wait
        raise WorkbookError(
            f"{url}: {reason}，试了 {self.limits.retries + 1} 次。"
            "请检查网络，稍后再试；没有网络时可直接填写 facts.csv。"
        )

    def _request(self, url: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        """One request after the host's pause; the body is read within limits of type, size and time."""
        host = urlsplit(url).netloc
        time.sleep(max(0.0, self.next_time.get(host, 0.0) - time.monotonic()))
        self.requests += 1
        try:
            with self.http.stream("GET", url, headers=headers) as response:
                kind = response.headers.get("content-type", "text/html").split(";")[0].strip().lower()
                if response.is_success and kind not in ALLOWED_TYPES:
                    raise Refused(f"{url}: 内容类型是 {kind}，不是网页或 JSON。请检查网址。")
                return response, self._body(response, url) if response.is_success else b""
        finally:
            self.next_time[host] = time.monotonic() + self._delay(host)

    def _body(self, response: httpx.Response, url: str) -> bytes:
        """The whole body, or Refused when it is too large or takes too long."""
        started, parts, size = time.monotonic(), [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > self.limits.max_bytes or time.monotonic() - started > self.limits.total_seconds:
                raise Refused(
                    f"{url}: 页面超过 {self.limits.max_bytes:,} 字节或 "
                    f"{self.limits.total_seconds:.0f} 秒，已停止。请换一个较小的页面。"
                )
        return b"".join(parts)

    def _delay(self, host: str) -> float:
        robots = self.robots.get(host)
        asked = robots.crawl_delay(USER_AGENT) if robots else None
        return max(self.limits.delay, min(30.0, float(asked or 0)))

    def _allowed(self, url: str) -> bool:
        """What robots.txt says.

        A site without one (4xx) allows everything, one that fails to answer allows nothing.
        """
        parts = urlsplit(url)
        if parts.netloc not in self.robots:
            self.robots[parts.netloc] = None  # no delay is known while robots.txt itself is fetched
            try:
                _, content = self._follow(f"{parts.scheme}://{parts.netloc}/robots.txt", {}, robots=False)
                self.robots[parts.netloc] = Protego.parse(content.decode("utf-8", "replace"))
            except NotThere:
                self.robots[parts.netloc] = None
            except WorkbookError:
                del self.robots[parts.netloc]
                raise
        robots = self.robots[parts.netloc]
        return robots is None or robots.can_fetch(url, USER_AGENT)

    def _check_address(self, url: str) -> None:
        """Only http(s), and no private address unless that is wanted.

        A redirect must not reach into the own network.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{url}: 只能抓取 http 或 https 网址。")
        if self.limits.allow_private:
            return
        try:
            found = {
                item[4][0]
                for item in socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
            }
        except OSError as error:
            raise WorkbookError(
                f"{url}: 找不到主机 {parts.hostname}。请检查网络和网址；没有网络时可直接填写 facts.csv。"
            ) from error
        addresses = [ipaddress.ip_address(address.split("%")[0]) for address in found]
        if not all(address.is_global or address in PROXY_ADDRESSES for address in addresses):
            raise Refused(f"{url}: 指向内部网络的地址，已拒绝。")

    def _place(self, url: str, ending: str) -> Path:
        return self.cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.{ending}"

    def _cached(self, url: str) -> tuple[Page | None, float]:
        """The stored page and its age in seconds."""
        meta, body = self._place(url, "json"), self._place(url, "bin")
        if not (meta.is_file() and body.is_file()):
            return None, 0.0
        values = json.loads(meta.read_text(encoding="utf-8"))
        return Page(
            values["url"], body.read_bytes(), values["content_type"], values["retrieved"]
        ), time.time() - meta.stat().st_mtime

    def _store(self, url: str, page: Page, response: httpx.Response) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        with replacing(self._place(url, "bin")) as temporary:
            temporary.write_bytes(page.content)
        values = {k: v for k, v in asdict(page).items() if k != "content"}
        headers = {"etag": response.headers.get("etag"), "modified": response.headers.get("last-modified")}
        write_json(self._place(url, "json"), values | headers)
