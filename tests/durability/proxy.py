"""An HTTP proxy in front of an object store that breaks requests on demand."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Proxy:
    """Forwards to ``host:port``.

    Parameters
    ----------
    host, port
        Of the real object store.

    Attributes
    ----------
    fault : callable
        Called with method, path and headers of each request; returns what to do with it: "" (forward it), "500 before",
        "500 after", "409 before", "403 before", "expired" (refuse it as S3 does with credentials that have expired), "hang
        after" (forward it, never answer), "drop after" (forward it, close the connection), "slow" (answer late),
        "unconditional" (forward it without If-None-Match).
    requests : list of (str, str, str)
        Method, path and fault of all requests so far.
    """

    HANG_SECONDS, SLOW_SECONDS = 8.0, 0.3

    def __init__(self, host: str, port: int) -> None:
        self.fault: Callable[[str, str, dict[str, str]], str] = lambda method, path, headers: ""
        self.requests: list[tuple[str, str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes, and the second waited 40 ms for an answer

            def log_message(self, *args: object) -> None:
                """Be quiet."""

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = next((v for k, v in headers if k.lower() == "content-length"), str(len(body)))
                self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _serve(self) -> None:
                headers = dict(self.headers.items())
                body = self.rfile.read(int(headers.get("Content-Length") or headers.get("content-length") or 0))
                what = proxy.fault(self.command, self.path, headers)
                proxy.requests.append((self.command, self.path, what))
                broken = b"<Error><Code>InternalError</Code><Message>injected</Message></Error>"
                if what == "expired":
                    self._answer(
                        400, [("Content-Type", "application/xml")], broken.replace(b"InternalError", b"ExpiredToken")
                    )
                    return
                if what.endswith(" before"):
                    self._answer(int(what[:3]), [("Content-Type", "application/xml")], broken)
                    return
                if what == "unconditional":
                    headers = {k: v for k, v in headers.items() if k.lower() != "if-none-match"}
                connection = http.client.HTTPConnection(host, port, timeout=30)
                connection.request(self.command, self.path, body, headers)
                reply = connection.getresponse()
                data = reply.read()
                connection.close()
                if what == "500 after":
                    self._answer(500, [("Content-Type", "application/xml")], broken)
                elif what == "drop after":
                    self.close_connection = True
                elif what == "hang after":
                    time.sleep(proxy.HANG_SECONDS)
                    self.close_connection = True
                else:
                    if what == "slow":
                        time.sleep(proxy.SLOW_SECONDS)
                    self._answer(reply.status, reply.getheaders(), data)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def nth(n: int, what: str, matches: Callable[[str, str], bool]) -> Callable[[str, str, dict[str, str]], str]:
    """Return a fault that hits the n-th request (from 0) that matches."""
    lock, seen = threading.Lock(), [0]

    def fault(method: str, path: str, headers: dict[str, str]) -> str:
        if not matches(method, path):
            return ""
        with lock:
            seen[0] += 1
            return what if seen[0] == n + 1 else ""

    return fault
