"""`recsys-data serve` as a process of its own: from an answer to the impressions in the lake."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data_tests.serving.conftest import declare

PATIENCE = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment_of(shop, **settings):
    own = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    own |= {"RECSYS_DATA_DIR": shop.settings.dir, "RECSYS_DATA_CONTRACTS": shop.settings.contracts}
    return own | {f"RECSYS_DATA_{name.upper()}": str(value) for name, value in settings.items()}


def call(url, body=None):
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        return json.load(response)


@pytest.mark.integration
def test_an_answer_of_a_process_is_in_the_lake_with_its_propensities(shop):
    declare(shop, name="home", exploration=0.3, shortlist=8, n=4)
    shop.log.close()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "recsys_data.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment_of(shop, log_partitions=1), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert call(f"{url}/health")["status"] == "ok"
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                time.sleep(0.1)
        answers = [call(f"{url}/v1/recommend", {"user_id": f"u{n}"}) for n in range(20)]
        # What the lake gets is served without a restart.
        gone = {f"i{n}" for n in range(20)}
        shop.list_items([f"i{n}" for n in range(40) if f"i{n}" not in gone])
        while call(f"{url}/health")["catalogue"]["items"] != 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        after = [call(f"{url}/v1/recommend", {"user_id": f"u{n}"}) for n in range(20)]
        assert not gone & {one["item_id"] for answer in after for one in answer["items"]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, 128 + signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()
    shop.consume()
    stored = {
        (row["recommendation_id"], row["position"]): (row["item_id"], row["propensity"], row["score"], row["model"])
        for row in shop.rows()
    }
    answered = {
        (answer["recommendation_id"], one["position"]): (
            one["item_id"],
            one["propensity"],
            one["score"],
            answer["model"],
        )
        for answer in [*answers, *after]
        for one in answer["items"]
    }
    assert stored == answered and len(stored) == 40 * 4


@pytest.mark.integration
def test_several_workers_answer_on_one_port_and_end_together(shop):
    shop.log.close()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "recsys_data.cli", "serve", "--port", str(port), "--workers", "2"]
    # A new log has as many partitions as it is opened with.
    shutil.rmtree(shop.settings.log_dir)
    process = subprocess.Popen(command, env=environment_of(shop, log_partitions=2), stderr=subprocess.PIPE, text=True)
    logs = [shop.settings.process_logs_dir / f"serving-{number}.log" for number in (1, 2)]
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(log.is_file() and "startup complete" in log.read_text() for log in logs):
            assert process.poll() is None and time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.1)
        answers = [call(f"{url}/v1/recommend", {"user_id": f"u{n % 20}", "n": 2}) for n in range(60)]
        assert all(len(one["items"]) == 2 for one in answers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, process.communicate()
    finally:
        process.kill()
        process.communicate()
    log = EmbeddedLog(shop.settings.log_dir, partitions=2, segment_bytes=1 << 20)
    assert all(log.count(partition, 0) for partition in log.partitions())
    assert sum(log.count(partition, 0) for partition in log.partitions()) == 120
    log.close()
