"""A proxy before the S3 server that answers some requests with an error, or late, as busy stores do."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>try again</Message></Error>'
CODES = {500: "InternalError", 503: "SlowDown"}
HOP = ("connection", "transfer-encoding", "keep-alive")

#: number of the request -> status to answer with, seconds to wait before passing it on, or None
Fault = Callable[[int], int | float | None]


@contextlib.contextmanager
def faulty(port: int, fault: Fault) -> Iterator[tuple[str, dict[str, int]]]:
    """The proxy's endpoint, and counts of what it did."""
    seen = {"requests": 0, "errors": 0, "late": 0}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            with lock:
                found = fault(seen["requests"])
                seen["requests"] += 1
                seen["errors"] += isinstance(found, int)
                seen["late"] += isinstance(found, float)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if isinstance(found, int):
                return self.reply(
                    found, [], b"" if self.command == "HEAD" else ERROR.format(code=CODES[found]).encode()
                )
            if found is not None:
                time.sleep(found)
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in (*HOP, "expect")}
            upstream.request(self.command, self.path, body, headers)  # Host as it was signed
            got = upstream.getresponse()
            kept = [(k, v) for k, v in got.getheaders() if k.lower() not in HOP]
            self.reply(got.status, kept, got.read())
            upstream.close()

        def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            elif not any(name.lower() == "content-length" for name, _ in headers):
                self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 (names of the library)

        def log_message(self, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
