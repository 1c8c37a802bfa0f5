"""Runs of assets as OpenLineage events, received by a stand-in for the receiver."""

# ruff: noqa: F811 - fixtures of another module

import importlib.util
import os
import sys

import dagster as dg
import pytest

from recsys_data.errors import UserError
from recsys_data_tests.defs.test_definitions import datetime as clock
from recsys_data_tests.defs.test_definitions import (  # noqa: F401 - fixtures
    defs,
    instance,
    lake,
    log,
    materialize,
    settings,
    tick,
    today,
    view,
)
from recsys_data_tests.support.webhook import webhook

SENSOR = "openlineage_sensor"


@pytest.fixture
def receiver(monkeypatch):
    if not importlib.util.find_spec("dagster_openlineage"):
        if os.environ.get("CI"):
            pytest.fail("dagster-openlineage is not there, but CI must run it.")
        pytest.skip("dagster-openlineage is not there.")
    with webhook() as found:
        monkeypatch.setenv("OPENLINEAGE_URL", found.url)
        yield found


@pytest.fixture
def nobody(receiver, monkeypatch):
    """A receiver that is not there."""
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")


def now():
    return clock.now().astimezone()


@pytest.mark.integration
def test_a_run_of_an_asset_is_sent_with_what_it_was_made_of(receiver, settings, defs, instance, log, lake):
    log.append([view(now())])
    first = tick(defs, SENSOR, instance, settings, log, lake)
    assert materialize(defs, instance, ["interactions"], today()).success
    second = tick(defs, SENSOR, instance, settings, log, lake, first.cursor)
    sent = [one for one in receiver.posted if one["job"]["name"] == "interactions"]
    # A stream reports several times in a run.
    start, *rest = [one["eventType"] for one in sent]
    assert start == "START" and set(rest) == {"COMPLETE"}
    assert len({one["run"]["runId"] for one in sent}) == 1
    complete = sent[-1]
    assert "event_log" in {one["name"] for one in complete["inputs"]}
    (output,) = complete["outputs"]
    assert output["name"] == "interactions"
    assert {"event_id", "user_id", "item_id"} <= {one["name"] for one in output["facets"]["schema"]["fields"]}
    # Each is sent once.
    count = len(receiver.posted)
    third = tick(defs, SENSOR, instance, settings, log, lake, second.cursor)
    assert (len(receiver.posted), third.cursor) == (count, second.cursor)


@pytest.mark.integration
@pytest.mark.parametrize("status", [302, 400, 401, 500])
def test_a_receiver_that_fails_stops_nothing(status, receiver, settings, defs, instance, log, lake):
    first = tick(defs, SENSOR, instance, settings, log, lake)
    receiver.status = status
    log.append([view(now())])
    assert materialize(defs, instance, ["interactions"], today()).success
    second = tick(defs, SENSOR, instance, settings, log, lake, first.cursor)
    assert int(second.cursor) > int(first.cursor or 0) and receiver.posted


@pytest.mark.integration
def test_a_receiver_that_is_away_stops_nothing(nobody, settings, defs, instance, log, lake):
    first = tick(defs, SENSOR, instance, settings, log, lake)
    log.append([view(now())])
    assert materialize(defs, instance, ["interactions"], today()).success
    second = tick(defs, SENSOR, instance, settings, log, lake, first.cursor)
    assert int(second.cursor) > int(first.cursor or 0)


def test_without_a_receiver_there_is_no_sensor(settings, defs, monkeypatch):
    with pytest.raises(dg.DagsterInvariantViolationError):
        defs.resolve_sensor_def(SENSOR)


def test_a_receiver_without_the_extra_is_explained(monkeypatch):
    from recsys_data.defs.monitoring import openlineage

    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "dagster_openlineage.adapter", None)
    with pytest.raises(UserError, match=r"recsys-data\[openlineage\]"):
        openlineage.definitions()
