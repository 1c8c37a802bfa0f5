"""The addresses at which the UI may be requested, and whether a request comes from one of them.

A page of an attacker can make its own name resolve to this machine (DNS rebinding): then `Host` still has that name.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
WILDCARDS = ("0.0.0.0", "[::]")
HTTP_PORT = 80
HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Values of `Host` that are served, in lower case.

    Attributes:
        port: where the UI listens.
        own: of the address that it listens on, and of loopback.
        further: of proxies and port forwards, as the operator named them.
        any_ip: whether any IP address with the right port is served too, because it listens on all of them. Only names
            can be rebound.
    """

    port: int
    own: frozenset[str]
    further: frozenset[str]
    any_ip: bool

    @classmethod
    def of(cls, host: str, port: int, further: Iterable[str] = ()) -> "Addresses":
        """The addresses of a UI that listens on `host` and `port`.

        Args:
            host: name or IP address.
            port: its port.
            further: `name` (without a port, or with that of the UI) or `name:port`.
        """
        host = host.lower()
        host = f"[{host}]" if ":" in host else host
        own = {f"{name}:{port}" for name in (*LOOPBACK, host)}
        if port == HTTP_PORT:
            own |= {*LOOPBACK, host}
        named = {name.lower() for name in further}
        named |= {f"{name}:{port}" for name in named if not re.search(r":[0-9]+$", name)}
        return cls(port, frozenset(own), frozenset(named), host in WILDCARDS)

    def serve(self, host: str) -> bool:
        """Whether a request with this `Host` is for the UI.

        >>> addresses = Addresses.of("127.0.0.1", 3000, ["ui.example"])
        >>> [addresses.serve(host) for host in ("localhost:3000", "ui.example", "localhost", "evil.example:3000")]
        [True, True, False, False]
        """
        host = host.lower()
        return host in self.own or host in self.further or (self.any_ip and self._is_ip(host))

    def include(self, url: str, host: str) -> bool:
        """Whether a page at `url` (of `Origin` or `Referer`) belongs to the UI that was requested as `host`.

        `localhost:3000` may be another server than `127.0.0.1:3000`, so the page must have the requested address.

        >>> addresses = Addresses.of("127.0.0.1", 3000)
        >>> pages = ("http://127.0.0.1:3000/runs", "http://localhost:3000", "http://127.0.0.1:3001", "null")
        >>> [addresses.include(page, "127.0.0.1:3000") for page in pages]
        [True, False, False, False]
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        page = parts.netloc.lower()
        return parts.scheme in ("http", "https") and (page == host.lower() or page in self.further)

    def _is_ip(self, host: str) -> bool:
        found = HOST_AND_PORT.fullmatch(host)
        if not found or int(found[2] or HTTP_PORT) != self.port:
            return False
        try:
            ipaddress.ip_address(found[1].strip("[]"))
        except ValueError:
            return False
        return True
