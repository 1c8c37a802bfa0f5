"""Requests that Dagster's application must never see, and those that it must."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.webserver import DagsterWebserver
from starlette.types import ASGIApp, Message

from recsys_data.operations.ui.address import Addresses
from recsys_data.operations.ui.protection import Protection

TOKEN = "t" * 43
BASE = "http://127.0.0.1:3000"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
MUTATION = "mutation { setNuxSeen }"
QUERY = "{ version }"


class Client:
    """A browser: it keeps cookies, and follows no redirect."""

    def __init__(self, app: ASGIApp, portal: BlockingPortal) -> None:
        self._app = app
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE)
        self._portal = portal

    def request(self, method: str, path: str, **sent: Any) -> httpx.Response:
        return self._portal.call(partial(self._http.request, method, path, **sent))

    def get(self, path: str, **sent: Any) -> httpx.Response:
        return self.request("GET", path, **sent)

    def post(self, path: str, **sent: Any) -> httpx.Response:
        return self.request("POST", path, **sent)

    def websocket(self, headers: dict[str, str]) -> list[str]:
        """The types of the events that a handshake and a first message are answered with."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._http.cookies.items())
        given = {"host": "127.0.0.1:3000", "cookie": cookies, **headers}
        scope = {
            "type": "websocket",
            "scheme": "ws",
            "path": "/graphql",
            "query_string": b"",
            "subprotocols": ["graphql-ws"],
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        }
        hello = {"type": "websocket.receive", "text": '{"type": "connection_init"}'}
        messages = iter([{"type": "websocket.connect"}, hello, {"type": "websocket.disconnect", "code": 1000}])
        found: list[str] = []

        async def receive() -> Message:
            return next(messages)

        async def send(message: Message) -> None:
            found.append(message["type"])

        self._portal.call(self._app, scope, receive, send)
        return found


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ASGIApp, list[str]]]:
    """Dagster's own application, on an instance without code, and the GraphQL operations that it executed."""
    executed: list[str] = []
    execute = DagsterWebserver.execute_graphql_request

    async def noted(self: Any, request: Any, query: str, variables: Any, operation_name: Any) -> Any:
        executed.append(query)
        return await execute(self, request, query, variables, operation_name)

    with (
        pytest.MonkeyPatch.context() as patch,
        DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
    ):
        patch.setattr(DagsterWebserver, "execute_graphql_request", noted)
        yield create_app_from_workspace_process_context(context), executed


@pytest.fixture
def executed(dagster: tuple[ASGIApp, list[str]]) -> list[str]:
    dagster[1].clear()
    return dagster[1]


@pytest.fixture
def client(dagster: tuple[ASGIApp, list[str]]) -> Iterator[Client]:
    """A browser that has no token."""
    with start_blocking_portal() as portal:
        yield Client(
            Protection(dagster[0], Addresses.of("127.0.0.1", 3000, ["ui.example", "localhost:4000"]), TOKEN), portal
        )


@pytest.fixture
def user(client: Client) -> Client:
    """A browser that has opened the address with the token."""
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 303
    return client


def test_the_address_with_the_token_sets_a_cookie_that_scripts_and_other_sites_do_not_get(client: Client) -> None:
    answer = client.get(f"/runs?token={TOKEN}&view=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/runs?view=a%26b"
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/", "recsys_data_ui_3000="))
    assert client.get("/runs").status_code == 200


def test_the_address_with_the_token_does_not_lead_elsewhere(client: Client) -> None:
    answer = client.get(f"{BASE}//evil.example/%5Cx?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/%5Cx"


@pytest.mark.parametrize(
    "path", ["/", "/server_info", "/graphql", "/runs/1", "/?token=wrong", "/?token=", "/logs/x/out"]
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Cookie": "recsys_data_ui_3000=x"}])
def test_without_the_token_nothing_is_served(client: Client, path: str, headers: dict[str, str]) -> None:
    answer = client.get(path, headers={"Accept": "text/html", **headers})
    assert answer.status_code == 401
    assert "ui-token" in answer.text
    assert client.post("/graphql", json={"query": QUERY}, headers=headers).status_code == 401


def test_a_program_with_the_token_asks_and_changes(client: Client, executed: list[str]) -> None:
    for query in (QUERY, MUTATION):
        assert client.post("/graphql", json={"query": query}, headers=BEARER).status_code == 200
    assert executed == [QUERY, MUTATION]
    assert client.get("/server_info", headers=BEARER).status_code == 200


def test_the_ui_of_a_user_asks_and_changes(user: Client, executed: list[str]) -> None:
    page = {"Origin": BASE, "Referer": f"{BASE}/runs", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert user.post("/graphql", json={"query": MUTATION}, headers=page).json()["data"] == {"setNuxSeen": True}
    assert executed == [MUTATION]
    assert user.websocket({"Origin": BASE}) == ["websocket.accept", "websocket.send"]


@pytest.mark.parametrize(
    "host",
    ["evil.example:3000", "evil.example", "127.0.0.1", "127.0.0.1:3001", "localhost.:3000", "192.168.1.2:3000", ""]
    + ["127.0.0.1:3000.evil.example", "user@127.0.0.1:3000", "localhost:4001"],
)
def test_a_foreign_host_is_served_nothing(user: Client, executed: list[str], host: str) -> None:
    headers = {"Host": host, **BEARER}
    assert user.get("/", headers=headers).status_code == 403
    assert user.post("/graphql", json={"query": MUTATION}, headers=headers).status_code == 403
    assert executed == []


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost:3000", "[::1]:3000", "ui.example", "localhost:4000"])
def test_own_hosts_are_served(client: Client, host: str) -> None:
    assert client.get("/server_info", headers={"Host": host, **BEARER}).status_code == 200


@pytest.mark.parametrize(
    ("listens", "host", "served"),
    [
        ("0.0.0.0", "192.168.1.2:3000", True),
        ("::", "[fe80::1]:3000", True),
        ("0.0.0.0", "evil.example:3000", False),
        ("0.0.0.0", "192.168.1.2:3001", False),
        ("box.example", "box.example:3000", True),
        ("10.0.0.1", "10.0.0.1:3000", True),
        ("10.0.0.1", "10.0.0.2:3000", False),
    ],
)
def test_only_names_can_be_rebound(listens: str, host: str, served: bool) -> None:
    assert Addresses.of(listens, 3000).serve(host) is served


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:3001"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "null"},
    {"Origin": "http://[evil"},
    {"Origin": f"{BASE}.evil.example"},
    {"Referer": "http://evil.example/page"},
    {"Referer": f"http://evil.example/?{BASE}/"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": BASE, "Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing(user: Client, executed: list[str], headers: dict[str, str]) -> None:
    given = {**headers, "Sec-Fetch-Mode": "no-cors"}
    assert user.post("/graphql", json={"query": MUTATION}, headers=given).status_code == 403
    assert user.post("/report_asset_materialization/x", json={}, headers=given).status_code == 403
    assert user.get("/graphql", params={"query": MUTATION}, headers=given).status_code == 403
    assert user.get("/server_info", headers=given).status_code == 403
    assert executed == []


@pytest.mark.parametrize("headers", [one for one in FOREIGN if "Origin" in one], ids=str)
def test_a_websocket_of_another_site_is_not_opened(user: Client, headers: dict[str, str]) -> None:
    assert user.websocket(headers) == ["websocket.close"]
    assert user.websocket({"Host": "evil.example:3000"}) == ["websocket.close"]


def test_a_websocket_without_the_token_is_not_opened(client: Client) -> None:
    assert client.websocket({"Origin": BASE}) == ["websocket.close"]


def test_a_link_of_another_site_leads_to_a_page_but_not_to_graphql_or_into_a_frame(user: Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    link["Referer"] = "http://evil.example/"
    assert user.get("/runs", headers=link).status_code == 200
    assert user.get("/graphql", headers={**link, "Accept": "text/html"}).status_code == 403
    assert user.get("/runs", headers={**link, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert user.get("/runs").headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize(
    "query",
    [
        {"query": MUTATION},
        {"query": f"query a {QUERY} mutation b {{ setNuxSeen }}", "operationName": "b"},
        {"query": [QUERY, MUTATION]},
        {"query": "subscription { locationStateChangeEvents { __typename } }"},
        {"query": QUERY},
        {"operationName": "b", "extensions": '{"persistedQuery":{"version":1}}'},
    ],
    ids=str,
)
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_get_executes_nothing(user: Client, executed: list[str], query: dict[str, Any], accept: str) -> None:
    assert user.get("/graphql", params=query, headers={"Accept": accept}).status_code == 405
    assert executed == []


def test_the_page_for_trying_queries_is_there(user: Client) -> None:
    answer = user.get("/graphql", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 200 and "GraphiQL" in answer.text


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; x=application/json",
        "application/graphql",
        "application/jsonx",
        "",
    ],
)
def test_what_a_form_can_send_changes_nothing(user: Client, executed: list[str], kind: str) -> None:
    for body in (json.dumps({"query": MUTATION}), MUTATION):
        answer = user.post("/graphql", params={"query": MUTATION}, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
    both = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    assert user.post("/graphql", content=json.dumps({"query": MUTATION}), headers=both).status_code == 415
    assert executed == []


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH"])
def test_nobody_is_allowed_to_ask_from_elsewhere(user: Client, method: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = user.request(method, "/graphql", headers={"Origin": BASE, **asked})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_batch_of_operations_executes_nothing(client: Client, executed: list[str]) -> None:
    with pytest.raises(AttributeError):
        client.post("/graphql", json=[{"query": MUTATION}], headers=BEARER)
    assert executed == []
