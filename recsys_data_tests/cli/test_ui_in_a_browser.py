"""The Dagster UI in a real Chromium: nothing that a page of another origin can send changes anything, and the UI works.

`chromium` is looked for on the path. Each attack would report a materialization that names it.
"""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from recsys_data.operations.local.code_server import MODULE
from recsys_data.operations.ui.token import ui_token
from recsys_data_tests.support.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration

START_SECONDS = 120
ASSET = "item_catalog"
SENSOR = "event_log_sensor"
REPORT = """mutation { reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION, description: "%s",
    assetKey: {path: ["item_catalog"]}}) { __typename } }"""
REPORTED = (
    '{ assetOrError(assetKey: {path: ["item_catalog"]}) { ... on Asset { assetMaterializations { description } } } }'
)
STATUS = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__", sensorName: "event_log_sensor",
    repositoryLocationName: "recsys_data.definitions"}) { ... on Sensor { sensorState { status } } } }"""

# Each gets the address of the UI and the mutation, and is done when the browser has had its answer.
ATTACKS = {
    "image": """([ui, query]) => new Promise(done => { const image = new Image(); image.onload = image.onerror = done;
        image.src = `${ui}/graphql?query=${encodeURIComponent(query)}` })""",
    "link": """([ui, query]) => new Promise(done => {
        window.open(`${ui}/graphql?query=${encodeURIComponent(query)}`); setTimeout(done, 1000) })""",
    "frame": """([ui, query]) => new Promise(done => { const frame = document.createElement("iframe");
        frame.onload = done; frame.src = `${ui}/graphql?query=${encodeURIComponent(query)}`;
        document.body.append(frame) })""",
    **{
        f"form {kind}": """([ui, query]) => new Promise(done => { const form = document.createElement("form");
        const frame = document.createElement("iframe"); frame.name = "KIND"; document.body.append(frame);
        form.action = `${ui}/graphql?query=${encodeURIComponent(query)}`; form.method = "POST"; form.enctype = "KIND";
        form.target = "KIND"; form.innerHTML = "<input name='{\\"query\\":\\"x\\"' value='}'>"; frame.onload = done;
        document.body.append(form); form.submit(); setTimeout(done, 3000) })""".replace("KIND", kind)
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
    },
    **{
        f"fetch no-cors {kind}": """([ui, query]) => fetch(`${ui}/graphql?query=${encodeURIComponent(query)}`, {
        method: "POST", mode: "no-cors", credentials: "include", headers: {"Content-Type": "KIND"},
        body: JSON.stringify({query}) }).then(String, String)""".replace("KIND", kind)
        # Dagster looks for the name of its type anywhere in the header.
        for kind in ("text/plain", "text/plain; x=application/json")
    },
    "fetch cors": """([ui, query]) => fetch(`${ui}/graphql`, {method: "POST", credentials: "include",
        headers: {"Content-Type": "application/json"}, body: JSON.stringify({query}) }).then(String, String)""",
    "beacon": """([ui, query]) => new Promise(done => { navigator.sendBeacon(
        `${ui}/graphql?query=${encodeURIComponent(query)}`, JSON.stringify({query})); setTimeout(done, 1000) })""",
    "websocket": """([ui, query]) => new Promise(done => {
        const socket = new WebSocket(`${ui.replace("http", "ws")}/graphql`, "graphql-ws");
        socket.onopen = () => { socket.send(JSON.stringify({type: "connection_init"}));
            socket.send(JSON.stringify({type: "start", id: "1", payload: {query}})) };
        socket.onmessage = () => setTimeout(() => done("opened"), 500);
        socket.onerror = () => done("refused") })""",
}  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Ui:
    """A UI that serves, and what a program asks of it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.token = ui_token(folder / "ui-token")
        workspace = folder / "workspace.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": [{"python_module": {"module_name": MODULE}}]}))
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("RECSYS_DATA_", "DAGSTER_"))}
        self.log = folder / "ui.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "recsys_data.operations.ui",
                    "--workspace",
                    str(workspace),
                    "--port",
                    str(self.port),
                ],
                env={**plain, "RECSYS_DATA_DIR": str(folder), "DAGSTER_DISABLE_TELEMETRY": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ask(self, query: str) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        body = json.dumps({"query": query}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/graphql", body, headers)) as answer:
            return json.load(answer)["data"]

    def reported(self) -> list[str]:
        return [one["description"] for one in self.ask(REPORTED)["assetOrError"].get("assetMaterializations", ())]

    def sensor(self) -> str:
        return self.ask(STATUS)["sensorOrError"]["sensorState"]["status"]

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            try:
                self.sensor()
                return
            except (OSError, KeyError):
                time.sleep(0.5)


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    found = Ui(tmp_path_factory.mktemp("state"))
    try:
        found.wait()
        yield found
    finally:
        found.process.terminate()
        found.process.wait(60)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: "Browser", ui: Ui) -> "Iterator[Page]":
    """A window of a user who has opened the address that `up` prints."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto(f"{ui.address}/?token={ui.token}", wait_until="commit")
    yield page
    context.close()


class Attacker(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>harmless</title><body>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def attacker() -> Iterator[int]:
    """The port of a server of another's pages."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Attacker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


# The browser sends the cookie for the second: a site has any port.
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_page_of_another_origin_changes_nothing(ui: Ui, page: "Page", attacker: int, host: str, attack: str) -> None:
    other = page.context.new_page()
    other.goto(f"http://{host}:{attacker}/")
    answer = other.evaluate(ATTACKS[attack], [ui.address, REPORT % attack])
    assert ui.reported() == []
    assert attack != "websocket" or answer == "refused"


def test_a_link_of_another_site_leads_to_a_page_after_a_click(ui: Ui, page: "Page", attacker: int) -> None:
    page.goto(f"http://localhost:{attacker}/")
    page.evaluate("page => { location.href = page }", f"{ui.address}/runs")
    # The browser withholds the cookie at first.
    page.get_by_role("link", name="continue").click()
    page.get_by_role("link", name="Automation").wait_for()


def test_a_page_whose_name_was_rebound_to_this_machine_is_served_nothing(browser: "Browser", ui: Ui) -> None:
    context = browser.new_context()
    page = context.new_page()
    # A name that is not ours and resolves to loopback, as after DNS rebinding.
    answer = page.goto(f"http://rebound.localhost:{ui.port}/?token={ui.token}")
    assert answer and answer.status == 403
    assert context.cookies() == []
    context.close()


def test_the_ui_works_for_who_opened_the_address(ui: Ui, page: "Page") -> None:
    assert page.url.startswith(ui.address) and ui.token not in page.url
    assert ui.sensor() == "RUNNING"
    page.goto(f"{ui.address}/locations/{MODULE}/sensors/{SENSOR}")
    page.locator("label:has(input[type=checkbox])").first.click()
    deadline = time.monotonic() + 30
    while ui.sensor() != "STOPPED":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    subscription = "subscription { locationStateChangeEvents { __typename } }"
    assert page.evaluate(ATTACKS["websocket"], [ui.address, subscription]) == "opened"


def test_without_the_token_a_page_says_where_it_is(browser: "Browser", ui: Ui) -> None:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(ui.address)
    assert answer and answer.status == 401
    assert "ui-token" in page.inner_text("body")
    context.close()
