"""A proxy that loses, cuts, refuses and delays: between a client and a server, as a process of its own.

Prints its port; each line of its input is a `Fault`, in JSON, that replaces the one before, and is answered by a line
that says how often the one before was met.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

CHUNK = 1 << 16
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
REFUSED = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
)


class Fault(msgspec.Struct):
    """What happens to requests.

    Attributes:
        match: what a request must hold; any holds the empty text.
        action: `lose` the answer that the server gave, `cut` before it gets the request, `refuse` with 503, `delay`.
        every: of the requests that match, the first is met, and then each of this number.
        times: how many at most.
        seconds: of a delay.
    """

    match: str = ""
    action: Literal["none", "lose", "cut", "refuse", "delay"] = "none"
    every: int = 1
    times: int = 1 << 30
    seconds: float = 0.0
    met: int = 0
    seen: int = 0

    def meets(self, request: bytes) -> bool:
        """Whether this request is to suffer."""
        if self.action == "none" or self.match.encode() not in request or self.met >= self.times:
            return False
        self.seen += 1
        if (self.seen - 1) % self.every:
            return False
        self.met += 1
        return True


class Server:
    """The proxy's process."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = host, port
        self.fault = Fault()

    async def handle(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, requests = await asyncio.open_connection(*self.upstream)
        back = asyncio.create_task(self.pump(server, answers))
        with contextlib.suppress(ConnectionError):
            while request := await client.read(CHUNK):
                if self.fault.meets(request):
                    action = self.fault.action
                    if action == "delay":
                        await asyncio.sleep(self.fault.seconds)
                    elif action == "refuse":
                        answers.write(REFUSED % (len(SLOW_DOWN), SLOW_DOWN))
                        await answers.drain()
                        break
                    elif action == "cut":
                        break
                    elif action == "lose":
                        back.cancel()
                        await asyncio.wait([back])
                        await self.lose(client, request, server, requests)
                        break
                requests.write(request)
                await requests.drain()
        back.cancel()
        for writer in (requests, answers):
            writer.close()

    async def lose(
        self, client: asyncio.StreamReader, request: bytes, server: asyncio.StreamReader, requests: asyncio.StreamWriter
    ) -> None:
        """Forward the whole request, which may come in parts, until the server answers."""
        answered = asyncio.create_task(server.read(CHUNK))
        while request and not answered.done():
            requests.write(request)
            more = asyncio.create_task(client.read(CHUNK))
            await asyncio.wait([answered, more], return_when=asyncio.FIRST_COMPLETED)
            request = more.result() if more.done() else b""
            more.cancel()

    async def pump(self, server: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while answer := await server.read(CHUNK):
                answers.write(answer)
                await answers.drain()
            answers.close()

    async def serve(self) -> None:
        listener = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        sys.stdout.write(f"{listener.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        while line := await asyncio.to_thread(sys.stdin.readline):
            met = self.fault.met
            self.fault = msgspec.json.decode(line, type=Fault)
            sys.stdout.write(f"{met}\n")
            sys.stdout.flush()


class Proxy:
    """A running proxy, as the test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._input, self._output = process.stdin, process.stdout
        self.port = int(self._output.readline())

    def suffer(self, fault: Fault) -> int:
        """From now on this happens; returns how often the fault before was met."""
        self._input.write(msgspec.json.encode(fault).decode() + "\n")
        self._input.flush()
        return int(self._output.readline())

    def stop(self) -> int:
        """Nothing happens any more."""
        return self.suffer(Fault())


@contextlib.contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy before this server."""
    command = [sys.executable, "-m", "recsys_data_tests.support.proxy", host, str(port)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        yield Proxy(process)
        process.kill()


if __name__ == "__main__":
    asyncio.run(Server(sys.argv[1], int(sys.argv[2])).serve())
