"""What a request must be to reach Dagster's web application; anything else is answered here.

In this order: it names an address of ours; it does not come from a page of another site, unless someone follows a link
to a page; it has a method and a content type that another site's page cannot send without asking first; it carries the
token, as a cookie or as `Authorization: Bearer`.
"""

import hmac
from urllib.parse import quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_data.operations.ui.address import Addresses

GRAPHQL = "/graphql"
# What is not a page: links of other sites do not lead here.
DATA = (GRAPHQL, "/logs/", "/download_debug/", "/notebook", "/dagit/notebook", "/report_asset")
COOKIE_SECONDS = 30 * 24 * 3600
POLICY_VIOLATION = 1008
HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# The link sends the cookie, which the browser withholds when a link of another site leads here.
NO_TOKEN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>recsys_data</title>
<h1>401: the token is missing or wrong</h1>
<p>Open the Dagster UI by the address that <code>recsys-data up</code> printed, which ends with
<code>/?token=...</code>. The token is in the file <code>ui-token</code> of the state folder
(<code>RECSYS_DATA_DIR</code>). Programs send it as <code>Authorization: Bearer TOKEN</code>.</p>
<p>If you have done so in this browser and followed a link here: <a href="">continue</a>.</p></html>"""


class Protection:
    """An ASGI application around Dagster's.

    Args:
        app: Dagster's.
        addresses: at which it may be requested.
        token: what a request has to know.
    """

    def __init__(self, app: ASGIApp, addresses: Addresses, token: str) -> None:
        self._app = app
        self._addresses = addresses
        self._token = token
        # Cookies do not know ports: two state folders on one machine would take each other's.
        self._cookie = f"recsys_data_ui_{addresses.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = self._answer(HTTPConnection(scope))
        if scope["type"] == "websocket":
            if answer:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            else:
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (answer or self._app)(scope, receive, send_with_headers)

    def _answer(self, request: HTTPConnection) -> Response | None:
        """What is answered in place of Dagster's application; None if the request may reach it."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._addresses.serve(hosts[0]):
            return refuse(
                403,
                "Host is not an address of this UI. Use the address that `recsys-data up` printed, or name the host of "
                "a proxy or port forward in RECSYS_DATA_UI_HOSTS.",
            )
        if self._from_elsewhere(request, hosts[0]) and not visits_page(request):
            return refuse(403, "The request comes from a page of another site.")
        if request.scope["type"] == "http" and (refusal := unsafe(request)):
            return refusal
        if request.scope.get("method") == "GET" and self._matches(request.query_params.get("token")):
            return self._let_in(request)
        return None if self._knows_token(request) else no_token()

    def _from_elsewhere(self, request: HTTPConnection, host: str) -> bool:
        """Whether a browser says that another site's page caused the request."""
        headers = request.headers
        if not {"same-origin", "none"}.issuperset(headers.getlist("sec-fetch-site")):
            return True
        pages = headers.getlist("origin") + headers.getlist("referer")
        return not all(self._addresses.include(page, host) for page in pages)

    def _matches(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode())

    def _knows_token(self, request: HTTPConnection) -> bool:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else None
        return self._matches(request.cookies.get(self._cookie)) or self._matches(bearer)

    def _let_in(self, request: HTTPConnection) -> Response:
        """Set the cookie, and lead to the same page without the token, which would stay in the browser's history."""
        query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
        # More than one slash would lead to another host.
        page = "/" + quote(request.scope["path"].lstrip("/"))
        answer = RedirectResponse(f"{page}?{query}" if query else page, 303, {"Cache-Control": "no-store"})
        answer.set_cookie(
            self._cookie,
            self._token,
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer


def visits_page(request: HTTPConnection) -> bool:
    """Whether somebody follows a link to a page, which then runs as ours; not a request that a page's script sent."""
    headers = request.headers
    return (
        request.scope.get("method") == "GET"
        and not request.scope["path"].startswith(DATA)
        and "origin" not in headers
        and headers.get("sec-fetch-mode", "navigate") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
    )


def unsafe(request: HTTPConnection) -> Response | None:
    """Refuse what browsers send for other sites' pages without asking: GET that executes, and forms."""
    method, headers = request.scope["method"], request.headers
    if method == "POST":
        kinds = [kind.partition(";")[0].strip().lower() for kind in headers.getlist("content-type")]
        if kinds != ["application/json"]:
            return refuse(415, "Content-Type is not application/json. Send JSON.")
    elif method not in ("GET", "HEAD"):
        return refuse(405, f"The method is {method}; expected GET or POST.", {"Allow": "GET, HEAD, POST"})
    elif request.scope["path"].rstrip("/") == GRAPHQL and (
        request.scope["query_string"] or "text/html" not in headers.get("accept", "")
    ):
        # Whatever operation it names: the UI sends none by GET, so there is nothing to distinguish.
        return refuse(405, "GraphQL operations are sent by POST, as application/json.", {"Allow": "POST"})
    return None


def refuse(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{reason}\n", status, headers)


def no_token() -> Response:
    headers = {
        "WWW-Authenticate": "Bearer",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'",
    }
    return HTMLResponse(NO_TOKEN, 401, headers)
