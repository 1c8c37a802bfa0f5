"""An HTTP client that costs little of the processor which it shares with what is measured.

About 0.1 ms a request. General clients take several milliseconds once dozens of requests wait, and then measure
themselves.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Any

import msgspec

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

TIMEOUT_SECONDS = 10.0


class HttpClient:
    """Posts JSON to one port of this machine, over connections that are kept.

    Args:
        url: `http://HOST:PORT`.
        seconds: how long an answer may take.
    """

    def __init__(self, url: str, seconds: float = TIMEOUT_SECONDS) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._seconds = seconds
        self._free: deque[Streams] = deque()

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        while self._free:
            self._free.pop()[1].close()

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            OSError: no connection, or none any more; TimeoutError is one.
            EOFError: the connection ended within the answer.
        """
        content = msgspec.json.encode(body)
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(content)}\r\n\r\n"
        async with asyncio.timeout(self._seconds):
            # The one that was used last: the others may end.
            streams = self._free.pop() if self._free else await asyncio.open_connection(self._host, self._port)
            try:
                streams[1].write(head.encode() + content)
                status, headers, answer = await read_answer(streams[0])
            except BaseException:
                streams[1].close()
                raise
        if headers.get("connection") == "close":
            streams[1].close()
        else:
            self._free.append(streams)
        return status, answer


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by their names in lower case, and body, whose length the answer gives.

    Raises:
        EOFError: the connection ended.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(head[0].split()[1]), headers, body
