"""What Dagster makes by itself after its sources, tick by tick on an ephemeral instance."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
import time_machine

from recsys_data.contracts import load_contracts
from recsys_data.contracts.model import Kind
from recsys_data.defs.automation import after_snapshot, after_sources, automation_sensor, of_any_day

FIRST, LAST = date(2026, 1, 1), date(2026, 1, 20)
DAYS = dg.DailyPartitionsDefinition(FIRST.isoformat(), (LAST + timedelta(days=1)).isoformat())
START = datetime(2026, 1, 21, 12, 1, tzinfo=UTC)
TICK = timedelta(seconds=30)
EVENTS, PRICES, VIEW, HISTORY, WHOLE = map(dg.AssetKey, ("events", "prices", "view", "prices_history", "whole"))


def day(number: int) -> str:
    return date(2026, 1, number).isoformat()


class Platform:
    """Assets of made-up days, and the sensor that evaluates their conditions."""

    def __init__(self, instance: dg.DagsterInstance, clock: time_machine.Traveller) -> None:
        @dg.asset(key=EVENTS, partitions_def=DAYS)
        def events() -> None: ...

        @dg.multi_asset(
            specs=[
                dg.AssetSpec(PRICES, partitions_def=DAYS),
                dg.AssetSpec(HISTORY, deps=[PRICES], partitions_def=DAYS, automation_condition=after_snapshot()),
            ],
            can_subset=True,
        )
        def prices(): ...

        @dg.asset(
            key=VIEW,
            partitions_def=DAYS,
            deps=[dg.AssetDep(EVENTS, partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2)), PRICES],
            backfill_policy=dg.BackfillPolicy.single_run(),
            automation_condition=after_sources(),
        )
        def view() -> None: ...

        @dg.asset(
            key=WHOLE,
            partitions_def=DAYS,
            deps=[of_any_day(EVENTS), of_any_day(HISTORY)],
            automation_condition=after_sources("* * * * *", newest_day=True),
        )
        def whole() -> None: ...

        self.instance = instance
        self._defs = dg.Definitions(assets=[events, prices, view, whole])
        self._clock = clock
        self._cursor = None

    def stored(self, key: dg.AssetKey, partition: str | None) -> None:
        self._clock.shift(1)
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def tick(
        self, after: timedelta = TICK, keys: Sequence[dg.AssetKey] = (VIEW, HISTORY)
    ) -> dict[dg.AssetKey, set[str]]:
        """What the next tick requests, by asset."""
        self._clock.shift(after)
        result = dg.evaluate_automation_conditions(self._defs, self.instance, cursor=self._cursor)
        self._cursor = result.cursor
        wanted = {key: result.get_requested_partitions(key) for key in keys}
        return {key: {one for one in found if one} for key, found in wanted.items() if found}

    def ten_minutes(self) -> dict[dg.AssetKey, set[str]]:
        return self.tick(timedelta(minutes=10))


@pytest.fixture
def platform():
    with time_machine.travel(START, tick=False) as clock, dg.DagsterInstance.ephemeral() as instance:
        yield Platform(instance, clock)


def test_days_that_have_a_source_and_were_never_made_are_requested_once(platform: Platform) -> None:
    platform.stored(EVENTS, day(3))
    platform.stored(PRICES, day(10))
    assert platform.tick() == {}
    assert platform.ten_minutes()[VIEW] == {day(3), day(4), day(5), day(10)}
    assert [platform.tick(), platform.ten_minutes()] == [{}, {}]


def test_a_late_event_requests_all_days_whose_window_it_is_in(platform: Platform) -> None:
    for made in (EVENTS, VIEW):
        for number in range(1, 21):
            platform.stored(made, day(number))
    assert [platform.ten_minutes(), platform.ten_minutes()] == [{}, {}]
    platform.stored(EVENTS, day(7))
    assert platform.tick() == {}
    assert platform.ten_minutes() == {VIEW: {day(7), day(8), day(9)}}


@pytest.mark.parametrize("seconds", [1, 29])
def test_what_changes_right_after_a_request_is_requested_again(platform: Platform, seconds: int) -> None:
    platform.tick()
    platform.stored(EVENTS, day(20))
    assert platform.ten_minutes() == {VIEW: {day(20)}}
    platform.stored(EVENTS, day(20))
    # The run of the request ends, and has perhaps not read what came meanwhile.
    platform.stored(VIEW, day(20))
    assert platform.tick(timedelta(seconds=seconds)) == {}
    assert platform.ten_minutes() == {VIEW: {day(20)}}
    platform.stored(VIEW, day(20))
    assert [platform.tick(), platform.ten_minutes()] == [{}, {}]


def test_a_run_that_failed_is_not_repeated_until_a_source_changes(platform: Platform) -> None:
    platform.tick()
    platform.stored(EVENTS, day(20))
    assert platform.ten_minutes() == {VIEW: {day(20)}}
    assert [platform.ten_minutes() for _ in range(3)] == [{}] * 3
    platform.stored(EVENTS, day(20))
    assert platform.ten_minutes() == {VIEW: {day(20)}}


def test_a_run_that_makes_whatever_differs_is_one_request_of_the_newest_day(platform: Platform) -> None:
    minute = timedelta(minutes=1)
    platform.tick()
    for number in (2, 9, 15, 20):
        platform.stored(EVENTS, day(number))
    assert platform.tick(minute, [WHOLE]) == {WHOLE: {day(20)}}
    assert [platform.tick(minute, [WHOLE]) for _ in range(2)] == [{}, {}]
    platform.stored(EVENTS, day(20))
    assert platform.tick(minute, [WHOLE]) == {WHOLE: {day(20)}}


def test_a_report_of_no_partition_requests_nothing(platform: Platform) -> None:
    platform.tick()
    platform.stored(EVENTS, None)
    assert platform.ten_minutes() == {}


def test_a_history_follows_a_snapshot_that_was_stored_without_it(platform: Platform) -> None:
    platform.tick()
    platform.stored(PRICES, day(4))
    assert platform.tick() == {HISTORY: {day(4)}}
    platform.stored(HISTORY, day(4))
    assert platform.tick() == {}


def test_a_history_that_was_stored_with_its_snapshot_is_not_requested(platform: Platform) -> None:
    platform.tick()
    platform.stored(PRICES, day(4))
    platform.stored(HISTORY, day(4))
    assert [platform.tick().get(HISTORY) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("source", [EVENTS, HISTORY])
def test_rows_of_any_day_request_the_newest_day_of_what_makes_all_days_that_differ(
    platform: Platform, source: dg.AssetKey
) -> None:
    platform.tick()
    platform.stored(source, day(4))
    platform.stored(source, day(9))
    assert platform.tick(timedelta(minutes=1), [WHOLE]).get(WHOLE) == {day(20)}
    platform.stored(WHOLE, day(20))
    assert platform.tick(timedelta(minutes=1), [WHOLE]).get(WHOLE) is None
    platform.stored(source, day(4))
    assert platform.tick(timedelta(minutes=1), [WHOLE]).get(WHOLE) == {day(20)}


@pytest.fixture(scope="module")
def graph():
    from recsys_data.definitions import defs

    return defs().resolve_asset_graph()


def test_every_history_is_automated_and_the_sensor_runs(graph) -> None:
    automated = {key.to_user_string() for key in graph.materializable_asset_keys if graph.get(key).automation_condition}
    assert {name for name, one in load_contracts().items() if one.kind is Kind.HISTORY} <= automated
    assert automation_sensor.default_status is dg.DefaultSensorStatus.RUNNING


@pytest.mark.parametrize("condition", [after_sources, after_snapshot])
def test_conditions_are_evaluated_by_the_daemon(condition: Callable[[], dg.AutomationCondition]) -> None:
    assert condition().is_serializable
