"""The demo shop on the serving address: static files, and what the page asks beside the public API.

Data flow: browser -> `/v1/recommend`, `/v1/similar`, `/v1/items` -> shelves; clicks -> the collector, as Segment's
browser snippet sends them -> lake -> the next shelf. Run alone: `recsys-data serve --shop http://127.0.0.1:8080`.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.collector.requests import RequestError, basic_key, check_key, read_body
from recsys_data.ingestion.streaming.collector.responses import Handler, as_json, explained
from recsys_data.serving.answers import Id, Request, Visitors
from recsys_data.serving.shop.numbers import Numbers
from recsys_data.serving.shop.shoppers import Shoppers
from recsys_data.settings import Settings

HOME = "/shop/"
FILES = {
    HOME: ("index.html", "text/html"),
    "/shop/shop.css": ("shop.css", "text/css"),
    "/shop/shop.js": ("shop.js", "text/javascript"),
}
# The page asks about one visitor.
MAX_BODY_BYTES = 4096


class Visitor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom the page asks about."""

    user_id: Id | None = None
    anonymous_id: Id | None = None
    session_id: Id | None = None


class DemoShop:
    """The pages and endpoints of the shop.

    Args:
        settings: say which keys there are.
        collector: URL of the collector, as browsers reach it.
        visitors: what answers know of visitors.
        shoppers: whom the page offers.
        numbers: what it shows beside the shelves.

    Raises:
        UserError: the URL is not one.
    """

    def __init__(
        self, settings: Settings, collector: str, visitors: Visitors, shoppers: Shoppers, numbers: Numbers
    ) -> None:
        self._keys = settings.keys
        self._collector = origin(collector)
        self._visitors = visitors
        self._shoppers = shoppers
        self._numbers = numbers
        self._headers = headers(self._collector)
        pages = files("recsys_data.serving.shop").joinpath("page")
        self._files = {path: (pages.joinpath(name).read_bytes(), kind) for path, (name, kind) in FILES.items()}

    def routes(self) -> list[Route]:
        """The routes of the shop."""
        gets: dict[str, Handler] = {path: partial(self._file, path) for path in self._files}
        gets |= {"/": self._home, "/shop": self._home, "/shop/settings": self._settings}
        gets |= {
            "/shop/shoppers": partial(self._found, self._shoppers.read),
            "/shop/numbers": partial(self._found, self._numbers.read),
        }
        routes = [Route(path, explained(self._local(handler))) for path, handler in gets.items()]
        return [*routes, Route("/shop/visitor", explained(self._local(self._visitor)), methods=["POST"])]

    def _local(self, handler: Handler) -> Handler:
        """Without keys only names of this machine are served: another site's name can be made to resolve to it."""

        async def handle(request: HttpRequest) -> Response:
            host = request.headers.get("host", "")
            if not self._keys and not is_loopback(host):
                raise RequestError(403, f"Host is {host[:64]!r}; expected 127.0.0.1, localhost or [::1].")
            return await handler(request)

        return handle

    async def _file(self, path: str, _: HttpRequest) -> Response:
        content, kind = self._files[path]
        return Response(content, media_type=kind, headers=self._headers)

    async def _home(self, _: HttpRequest) -> Response:
        return RedirectResponse(HOME)

    async def _settings(self, _: HttpRequest) -> Response:
        return self._json({"collector": self._collector, "needs_key": bool(self._keys)})

    async def _found(self, read: Callable[[], object], request: HttpRequest) -> Response:
        check_key(basic_key(request), self._keys, elsewhere="")
        return self._json(await asyncio.to_thread(read))

    async def _visitor(self, request: HttpRequest) -> Response:
        """The items that answers know that a visitor met; asking does not count as showing something."""
        check_key(basic_key(request), self._keys, elsewhere="")
        body = await read_body(request, MAX_BODY_BYTES, lambda count: None)
        try:
            given = msgspec.json.decode(body, type=Visitor)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(400, f"The body is not as expected: {error}.") from None
        found = self._visitors.recent_items(Request(**msgspec.structs.asdict(given)))
        return self._json({"items": found.items})

    def _json(self, content: object) -> Response:
        return as_json(200, content, self._headers)


def origin(url: str) -> str:
    """The origin of a URL, as a Content-Security-Policy names it.

    Raises:
        UserError: it has none.

    >>> origin("http://127.0.0.1:8080/")
    'http://127.0.0.1:8080'
    """
    parts = urlsplit(url)
    # Nothing that would end the directive of the policy that it becomes part of.
    if parts.scheme not in ("http", "https") or not parts.hostname or set(parts.netloc) & set(" ;,'\"@"):
        raise UserError(f"{url!r} is not the URL of a collector; expected one such as http://127.0.0.1:8080.")
    return f"{parts.scheme}://{parts.netloc}"


def headers(collector: str) -> dict[str, str]:
    """Headers of everything that belongs to the shop: it loads from this server, and sends to the collector only."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' {collector}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def is_loopback(host: str) -> bool:
    """Whether a `Host` names this machine.

    >>> [is_loopback(host) for host in ("127.0.0.1:8090", "[::1]:8090", "localhost", "evil.example:8090", "")]
    [True, True, True, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
