"""`recsys-data serve` as a process of its own: from an answer to the impressions in the lake."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from recsys_data_tests.serving.conftest import declare

PATIENCE = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def call(url, body=None):
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        return json.load(response)


@pytest.mark.integration
def test_an_answer_of_a_process_is_in_the_lake_with_its_propensities(shop):
    declare(shop, name="home", exploration=0.3, shortlist=8, n=4)
    shop.log.close()
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    environment |= {
        "RECSYS_DATA_DIR": shop.settings.dir,
        "RECSYS_DATA_CONTRACTS": shop.settings.contracts,
        "RECSYS_DATA_LOG_PARTITIONS": "1",
    }
    command = [sys.executable, "-m", "recsys_data.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
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
