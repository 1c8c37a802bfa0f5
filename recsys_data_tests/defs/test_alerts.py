"""The alerts sensor on a real Dagster instance: freshness, checks and runs, each change reported once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from recsys_data.defs.monitoring import alerts as alert_defs
from recsys_data.defs.resources import SettingsResource
from recsys_data.settings import Settings
from recsys_data_tests.support.webhook import SECRET, Webhook, webhook

STALE = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=1))


@dg.asset(freshness_policy=STALE)
def things(context: dg.AssetExecutionContext) -> None:
    if context.run.tags.get("fail"):
        raise ValueError("postgresql://user:password@db/shop refused")


@dg.asset_check(asset=things)
def is_small(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    passed = not context.run.tags.get("large")
    severity = dg.AssetCheckSeverity.WARN if context.run.tags.get("warn") else dg.AssetCheckSeverity.ERROR
    metadata = {"share": 0.5, "name of somebody": "Secret Person"}
    return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)


JOB = dg.define_asset_job("make_things", selection=[things])
DEFS = dg.Definitions.merge(
    dg.Definitions(sensors=[alert_defs.alerts_sensor]),
    dg.Definitions(
        [things],
        asset_checks=[is_small],
        jobs=[JOB],
        resources={"settings": SettingsResource()},
        executor=dg.in_process_executor,
    ),
)


class Deployment:
    """An instance, a webhook, and a sensor whose cursor is kept between looks as Dagster does."""

    def __init__(self, instance: dg.DagsterInstance, hook: Webhook) -> None:
        self.instance = instance
        self.hook = hook
        self.cursor: str | None = None

    def look(self) -> str:
        """One tick; returns what it says."""
        given = {"settings": Settings.from_env()}
        with dg.build_sensor_context(self.instance, self.cursor, definitions=DEFS, resources=given) as context:
            data = alert_defs.alerts_sensor.evaluate_tick(context)
            self.cursor = context.cursor
        assert not data.run_requests
        return data.skip_message or ""

    def reported(self) -> list[tuple[str, str, str]]:
        """What a look posts."""
        before = len(self.hook.posted)
        self.look()
        return [
            (one["kind"], one["subject"], one["state"]) for body in self.hook.posted[before:] for one in body["alerts"]
        ]

    def run(self, **tags: str) -> None:
        DEFS.resolve_job_def("make_things").execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def turn(self, state: FreshnessState) -> None:
        """Do as Dagster's daemon does when the freshness of `things` changes."""
        now = datetime.now(UTC).timestamp()
        change = FreshnessStateChange(
            key=things.key, new_state=state, previous_state=FreshnessState.UNKNOWN, state_change_timestamp=now
        )
        self.instance._report_runless_asset_event(change)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance, webhook() as hook:
        monkeypatch.setenv("RECSYS_DATA_ALERT_URL", hook.url)
        deployment = Deployment(instance, hook)
        assert deployment.reported() == []
        yield deployment


def test_a_failed_check_is_reported_once_and_so_is_its_recovery(there: Deployment) -> None:
    there.run()
    assert there.reported() == []
    there.run(large="yes")
    assert there.reported() == [("check", "things:is_small", "problem")]
    there.run(large="yes")
    assert there.reported() == there.reported() == []
    there.run()
    assert there.reported() == [("check", "things:is_small", "recovered")]
    assert there.reported() == []


def test_the_severity_of_a_check_is_reported_with_its_numbers_only(there: Deployment) -> None:
    there.run(large="yes", warn="yes")
    there.look()
    (one,) = there.hook.posted[-1]["alerts"]
    assert one["severity"] == "warning"
    assert "Check is_small of things failed (share 0.5); see run " in one["message"]
    assert "Secret Person" not in json.dumps(there.hook.posted)


def test_a_stale_dataset_is_reported_and_so_is_that_it_is_fresh_again(there: Deployment) -> None:
    there.turn(FreshnessState.UNKNOWN)
    assert there.reported() == []
    there.turn(FreshnessState.FAIL)
    assert there.reported() == [("freshness", "things", "problem")]
    assert there.reported() == []
    there.turn(FreshnessState.PASS)
    assert there.reported() == [("freshness", "things", "recovered")]


def test_a_failed_job_is_reported_until_it_succeeds_without_the_text_of_the_error(there: Deployment) -> None:
    there.run(fail="yes")
    assert ("run", "make_things", "problem") in there.reported()
    there.run(fail="yes")
    assert there.reported() == []
    there.run()
    assert ("run", "make_things", "recovered") in there.reported()
    assert "make_things" in json.dumps(there.hook.posted) and "password" not in json.dumps(there.hook.posted)


def test_what_failed_before_the_first_look_is_left_alone(there: Deployment) -> None:
    there.run(fail="yes")
    there.cursor = None
    later = datetime.now(UTC).timestamp() + 3600
    state = alert_defs.evaluated(alert_defs.State(), there.instance, DEFS.resolve_asset_graph(), later)
    assert [one.kind for one in state.incidents.values()] == []


def test_a_dead_webhook_stops_nothing_and_is_reported_when_it_is_back(there: Deployment, caplog) -> None:
    there.hook.status = 500
    there.run(large="yes")
    said = there.look()
    assert "1 alerts sent to log" in said and "it was answered 500" in said and SECRET not in said
    assert "bad now: things:is_small" in said
    again = there.look()
    assert "sent to log" not in again
    there.hook.status = 200
    assert there.reported() == [("check", "things:is_small", "problem")]
    assert len({body["alerts"][0]["id"] for body in there.hook.posted}) == 1
    assert there.reported() == []
    assert SECRET not in (there.cursor or "") and SECRET not in caplog.text


def test_the_code_location_has_the_sensor_running() -> None:
    from recsys_data.definitions import defs

    sensor = defs().resolve_sensor_def("alerts_sensor")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30
