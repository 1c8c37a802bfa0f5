"""The demo shop in a real Chromium: a click goes through the collector and the lake, and changes the shelf."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from recsys_data_tests.serving.test_serving_process import environment_of, free_port
from recsys_data_tests.support.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from recsys_data_tests.support.serving import ServingShop

pytestmark = pytest.mark.integration

PATIENCE = 90
CARD = "#home-items .card"
# What a headless browser shows does not count.
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"


class Deployment:
    """A collector, a consumer and a server with the shop, as processes over the folder of a shop."""

    def __init__(self, shop: "ServingShop", **settings: Any) -> None:
        self.shop = shop
        self.collector = f"http://127.0.0.1:{free_port()}"
        self.serving = f"http://127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = environment_of(shop, log_partitions=2, **settings)
        for writer in shop.writers:
            writer.close()
        # A new log has as many partitions as it is opened with.
        shutil.rmtree(shop.settings.log_dir)

    def start(self) -> None:
        self.run("collect", "--port", self.collector.rpartition(":")[2])
        self.wait_for(f"{self.collector}/health")
        self.run("ingest")
        self.run("serve", "--port", self.serving.rpartition(":")[2], "--shop", self.collector)
        self.wait_for(f"{self.serving}/health")

    def run(self, *command: str) -> None:
        log = (self.shop.settings.data_dir / f"{command[0]}.log").open("wb")
        self.processes[command[0]] = subprocess.Popen(
            [sys.executable, "-m", "recsys_data.cli", *command], env=self._environment, stdout=log, stderr=log
        )
        log.close()

    def wait_for(self, url: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10):
                    return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def stop(self, *names: str) -> None:
        for name in names or [*self.processes]:
            process = self.processes.pop(name)
            process.terminate()
            process.wait(PATIENCE)

    def events(self) -> list[dict[str, Any]]:
        """What is stored when everything has ended."""
        self.stop()
        subprocess.run(
            [sys.executable, "-m", "recsys_data.cli", "ingest", "--until-empty"], env=self._environment, check=True
        )
        return self.shop.rows()


@pytest.fixture
def deployed() -> Iterator[Callable[..., Deployment]]:
    with ExitStack() as stack:

        def deploy(shop: "ServingShop", **settings: Any) -> Deployment:
            found = Deployment(shop, **settings)
            stack.callback(found.stop)
            found.start()
            return found

        yield deploy


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A window, in which nothing may be reported on the console."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, user_agent=AGENT)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    reported: list[str] = []
    page.on("console", lambda message: reported.append(message.text))
    page.on("pageerror", lambda error: reported.append(str(error)))
    yield page
    context.close()
    # A server that was stopped on purpose.
    assert [one for one in reported if "ERR_CONNECTION_REFUSED" not in one] == []


def shelf(page: "Page") -> list[str | None]:
    return [one.get_attribute("data-item") for one in page.locator(CARD).all()]


def test_a_click_changes_the_shelf_and_is_stored_with_its_recommendation(
    shop: "ServingShop", deployed: Callable[..., Deployment], page: "Page"
) -> None:
    running = deployed(shop)
    # Somebody has shopped before.
    event = {"event_id": "e1", "type": "view", "user_id": "u3", "item_id": "i30", "event_ts": "2026-11-01T00:00:00Z"}
    event["event_ts"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    urllib.request.urlopen(f"{running.collector}/v1/events", json.dumps(event).encode()).close()
    page.goto(running.serving)
    page.locator(CARD).first.wait_for()
    assert page.locator("#home-source").inner_text() == "model popular · fallback"
    page.locator("#shopper option[value=u3]").wait_for(state="attached")
    page.get_by_label("You are").select_option("u3")
    page.get_by_text("model next_items/1").first.wait_for()
    before = shelf(page)
    assert "i30" not in before
    # As one without a mouse does it.
    page.locator(f"{CARD} .open").nth(2).focus()
    page.keyboard.press("Enter")
    page.locator("#status", has_text="The shelf has changed after").wait_for()
    after = shelf(page)
    assert before[2] not in after and set(after) != set(before)
    assert page.locator(f"{CARD}.new").count() == len(set(after) - set(before))
    assert page.locator("#similar-items .card").count() > 0
    page.locator(f"{CARD} .add").first.click()
    page.locator("#log li", has_text="cart").locator("small", has_text="used after").wait_for()
    page.get_by_role("button", name="Buy").click()
    page.locator("#log li", has_text="bought").locator("small", has_text="used after").wait_for()
    page.locator("#ctr tr", has_text="next_items/1").first.wait_for()
    stored = running.events()
    shown = {(row["recommendation_id"], row["item_id"]): row for row in stored if row["type"] == "impression"}
    acts = {row["type"]: row for row in stored if row["source"] == "recsys-data-demo-shop"}
    assert set(acts) == {"page_view", "click", "add_to_cart", "purchase"}
    click = acts["click"]
    assert (click["user_id"], click["item_id"]) == ("u3", before[2])
    for one in (click, acts["add_to_cart"], acts["purchase"]):
        impression = shown[one["recommendation_id"], one["item_id"]]
        for column in ("model", "variant", "position", "score", "propensity", "list_id"):
            assert one[column] == impression[column], column
        assert impression["user_id"] == "u3" and impression["session_id"] == one["session_id"]


def test_the_page_says_what_is_missing(empty: "ServingShop", deployed: Callable[..., Deployment], page: "Page") -> None:
    running = deployed(empty)
    page.goto(running.serving)
    notice = page.get_by_role("alert")
    notice.get_by_text("The lake is empty").wait_for()
    event = {"event_id": "e1", "type": "view", "user_id": "u3", "item_id": "i30"}
    event["event_ts"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    urllib.request.urlopen(f"{running.collector}/v1/events", json.dumps(event).encode()).close()
    notice.get_by_text("No model is trained yet").wait_for()
    empty.list_items([f"i{n}" for n in range(40)])
    page.locator(CARD).first.wait_for()
    running.stop("collect")
    page.locator(f"{CARD} .open").first.click()
    notice.get_by_text("The collector at").wait_for()
    running.stop("serve")
    notice.get_by_text("The server does not answer").wait_for()
    empty.register()
    running.run("serve", "--port", running.serving.rpartition(":")[2], "--shop", running.collector)
    page.get_by_text("model popular").first.wait_for()
    assert notice.is_hidden()


def test_with_keys_the_shop_opens_for_who_has_one(
    shop: "ServingShop", deployed: Callable[..., Deployment], page: "Page"
) -> None:
    running = deployed(shop, write_keys="a-secret-key")
    page.goto(running.serving)
    page.get_by_label("Write key").fill("a-secret-key")
    page.get_by_role("button", name="Open the shop").click()
    page.locator(f"{CARD} .open").first.click()
    page.locator("#log li small", has_text="used after").first.wait_for()
    (click,) = [row for row in running.events() if row["type"] == "click"]
    assert "a-secret-key" not in json.dumps(click, default=str)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_narrow_screen(
    shop: "ServingShop", deployed: Callable[..., Deployment], browser: "Browser", scheme: Any
) -> None:
    running = deployed(shop)
    context = browser.new_context(viewport={"width": 320, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    page.goto(running.serving)
    page.locator(CARD).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    ratio = """() => { const channel = (one) => { one /= 255; return one <= 0.04045 ? one / 12.92
        : ((one + 0.055) / 1.055) ** 2.4 };
        const light = (color) => { const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map(channel);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const behind = (node) => { for (; node; node = node.parentElement) {
            const color = getComputedStyle(node).backgroundColor;
            if (!color.endsWith(", 0)") && color !== "transparent") return color } return "rgb(255, 255, 255)" };
        return [...document.querySelectorAll("h1, h2, p, dt, dd, th, td, label, .title, .about, .picture, button")]
            .filter((node) => node.innerText?.trim() && !node.disabled).map((node) => {
            const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05) }).reduce((x, y) => Math.min(x, y)) }"""
    assert page.evaluate(ratio) >= 4.5  # WCAG 2.2, AA
    context.close()
