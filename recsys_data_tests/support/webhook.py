"""A webhook on loopback that keeps what it is posted, and answers as it is set."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "B0SECRETTOKEN"


class Webhook:
    """Attributes: `posted` (bodies, in order), `headers` (of each), `status` (answered), `hold` (answers wait)."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/services/{SECRET}"
        self.posted: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.status = 200
        self.hold: threading.Event | None = None


@contextmanager
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.headers.append(self.headers)
            found.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if found.hold:
                found.hold.wait(10)
            self.send_response(found.status)
            if found.status in (301, 302):
                self.send_header("Location", f"{found.url}/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Webhook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        if found.hold:
            found.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
