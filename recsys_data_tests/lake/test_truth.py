"""The planted truth of a storefront, from the collector into the lake, whatever is killed and wherever they are."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys_data_tests.support.kafka.broker import Broker, free_port
from recsys_data_tests.support.kafka.topics import topic_url
from recsys_data_tests.support.lakes import Place

pytestmark = pytest.mark.integration

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(params=["embedded", "kafka"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker | None]:
    """The broker of the event log; None: it is embedded."""
    if request.param == "embedded":
        yield None
        return
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def start(tmp_path: Path, broker: Broker | None, place: Place) -> Iterator[Start]:
    """Starts a command of a platform."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    given = {"RECSYS_DATA_DIR": str(tmp_path / "data"), **place.environment}
    if broker:
        given["RECSYS_DATA_EVENT_LOG"] = topic_url(broker=broker.address)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, stdout: int | None = None) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "recsys_data.cli", *arguments]
        with (tmp_path / f"{arguments[0]}.txt").open("ab") as output:
            started.append(subprocess.Popen(command, env=plain | given, stderr=output, stdout=stdout or output))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("place", ["local", "s3-postgresql", "s3-glue"], indirect=True)
def test_planted_truth_comes_out_exactly_while_everything_is_killed(
    tmp_path: Path, broker: Broker | None, start: Start
) -> None:
    url, truth = f"http://127.0.0.1:{free_port()}", tmp_path / "truth.json"
    collect = ("collect", "--port", url.rpartition(":")[2])
    collector = start(*collect)
    _until_it_answers(f"{url}/health")
    storefront = start("simulate", "--events", "4000", "--rate", "300", "--truth", str(truth), "--to", url)
    for turn in range(3):
        consumer = start("ingest")
        _sleep_while(storefront, 4)
        if turn == 0:
            _kill(collector)
            collector = start(*collect)
        if turn == 1 and broker:
            broker.kill()
            _sleep_while(storefront, 1)
            broker.start()
        _kill(consumer)
    assert storefront.wait(120) == 0
    assert start("ingest", "--until-empty").wait(120) == 0
    found = json.loads(start("status", "--json", stdout=subprocess.PIPE).communicate(timeout=60)[0])
    planted, ledger = json.loads(truth.read_text()), found["ledger"]
    assert ledger["balanced"]
    assert found["log"]["lag_events"] == 0
    assert ledger["accepted"] == planted["accepted"]
    for dataset in ("interactions", "identities", "contexts"):
        assert found["datasets"][dataset]["rows"] == planted[dataset], dataset
    # What the collector could not acknowledge was sent again: more duplicates, and more of the same dead letters. Blank
    # lines, which are among those that are not JSON, are none to it.
    assert ledger["duplicates"] >= planted["duplicates"]
    assert found["dead_letters_by_reason"].keys() == planted["dead_letters"].keys()
    for reason, count in planted["dead_letters"].items():
        assert reason == "malformed_json" or found["dead_letters_by_reason"][reason] >= count, reason


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def _sleep_while(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
