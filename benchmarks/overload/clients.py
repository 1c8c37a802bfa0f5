"""Clients that offer more than a collector can take: raw sockets, each request with events of its own.

A request is never sent again, so that what became of it is plain: acknowledged, refused, or unknown (the connection
broke before an answer). Run by `benchmarks.overload`, in processes of their own.
"""

import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.http_client import read_answer

PAUSE_SECONDS = 0.05
ANSWER_SECONDS = 60.0
CONNECT_SECONDS = 10.0
RETRIED = (429, 503)
PAD = "x" * 250


@dataclass
class Tally:
    """What one process of clients saw; a batch is `client-number`."""

    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0

    def add(self, other: dict[str, Any]) -> None:
        self.acknowledged += other["acknowledged"]
        self.unknown += other["unknown"]
        self.seconds += other["seconds"]
        self.without_retry_after += other["without_retry_after"]
        for answer, count in other["answers"].items():
            self.answers[answer] = self.answers.get(answer, 0) + count

    def count(self, answer: str) -> int:
        return self.answers.get(answer, 0)


def offer(port: int, names: list[str], events: int, seconds: float, report: Path) -> None:
    """Let clients of these names send requests of so many events for a time; writes their tally to `report`."""
    tally = Tally()
    asyncio.run(_offer(port, names, events, time.monotonic() + seconds, tally))
    report.write_text(json.dumps(asdict(tally)))


async def _offer(port: int, names: list[str], events: int, deadline: float, tally: Tally) -> None:
    await asyncio.gather(*(_Client(port, name, events, tally).run(deadline) for name in names))


class _Client:
    """One connection after the other, one request after the other."""

    def __init__(self, port: int, name: str, events: int, tally: Tally) -> None:
        self.port, self.name, self.events, self.tally = port, name, events, tally
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, deadline: float) -> None:
        number = 0
        while time.monotonic() < deadline:
            batch, number = f"{self.name}-{number}", number + 1
            if not await self._send(batch):
                await asyncio.sleep(PAUSE_SECONDS)
        self._close()

    async def _send(self, batch: str) -> bool:
        """Whether the batch was acknowledged."""
        sent = False
        begun = time.monotonic()
        try:
            if self.streams is None:
                self.streams = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), CONNECT_SECONDS)
            reader, writer = self.streams
            body = body_of(batch, self.events)
            head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            sent = True
            writer.write(head.encode() + body)
            status, headers, _ = await asyncio.wait_for(read_answer(reader), ANSWER_SECONDS)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self._close()
            self._count("no answer" if sent else f"no connection ({type(error).__name__})")
            if sent:
                self.tally.unknown.append(batch)
            return False
        self._count(str(status))
        if headers.get("connection") == "close":
            self._close()
        if status == 200:
            self.tally.acknowledged.append(batch)
            self.tally.seconds.append(round(time.monotonic() - begun, 4))
        elif status in RETRIED and not headers.get("retry-after", "").isdecimal():
            self.tally.without_retry_after += 1
        return status == 200

    def _count(self, answer: str) -> None:
        self.tally.answers[answer] = self.tally.answers.get(answer, 0) + 1

    def _close(self) -> None:
        if self.streams:
            self.streams[1].close()
        self.streams = None


def body_of(batch: str, events: int) -> bytes:
    """A request of so many events, each of about 400 bytes, whose ids begin with the name of the batch."""
    rest = f'"type":"view","user_id":"u1","item_id":"i1","event_ts":"2026-01-02T03:04:05Z","note":"{PAD}"}}'
    return "\n".join(f'{{"event_id":"{batch}-{number}",{rest}' for number in range(events)).encode()
