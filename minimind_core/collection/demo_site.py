"""A small site on loopback with pages written for this project about invented people, so that collecting
works offline.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

PAGES = Path(__file__).with_name("demo_pages")
PATHS = (
    "/item/lin.html", "/w/api.php?action=query&titles=周一诺", "/entity/Q1.json",
    "/ws/2/artist/1.json?fmt=json",
)  # fmt: skip


class Handler(SimpleHTTPRequestHandler):
    """The files of PAGES; the encyclopaedia is in GB2312 and says so only in its own text."""

    extensions_map: ClassVar = {**SimpleHTTPRequestHandler.extensions_map, ".php": "application/json"}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(PAGES))

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
