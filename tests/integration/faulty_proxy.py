"""A proxy on loopback before an S3 server, which answers some requests as a troubled service does."""

import contextlib
import http.client
import http.server
import random
import threading
from collections import Counter
from collections.abc import Iterator

FAULTS = ("500", "503", "reset", "short body", "after the deed")
"""The last: the server does what was asked, and nobody hears of it."""
SLOW_DOWN = b"<Error><Code>SlowDown</Code></Error>"


class _Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: tuple[str, int]
    share: float
    random: random.Random
    met: Counter[str]

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.random.choice(FAULTS) if self.random.random() < self.share else None
        if fault:
            self.met[fault] += 1
        if fault in ("500", "503"):
            self._answer(int(fault), {}, SLOW_DOWN)
        elif fault == "reset":
            self._hang_up()
        else:
            status, headers, content = self._asked(body)
            if fault == "after the deed":
                self._hang_up()
            elif fault == "short body" and len(content) > 1:
                self._answer(status, headers, content[: len(content) // 2], said=len(content))
                self._hang_up()
            else:
                self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection(*self.behind, timeout=30)) as server:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, said: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content) if said is None else said))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)


@contextlib.contextmanager
def faulty_proxy(port: int, *, share: float, seed: int) -> Iterator[tuple[str, Counter[str]]]:
    """Yield the address before the server at `port`, and how often each fault was met."""
    met: Counter[str] = Counter()
    values = {"behind": ("127.0.0.1", port), "share": share, "random": random.Random(seed), "met": met}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), values))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", met
    finally:
        server.shutdown()
        server.server_close()
