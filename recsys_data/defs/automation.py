"""Declarative automation: which assets Dagster makes because an asset that they are made of has changed.

Data flow: days that streams and snapshots report -> conditions of the assets downstream -> `automation_sensor`.
The conditions keep the changes that come while a run is requested: their triggers carry the times of the updates, which
`&` and `|` below `since` would drop, as those of `AutomationCondition.eager()` do.
"""

import dagster as dg

Condition = dg.AutomationCondition

# Streams report every half minute, and a run costs seconds whatever it has to do.
EVERY_TEN_MINUTES = "*/10 * * * *"

_updated_since_request = Condition.any_deps_match(Condition.newly_updated()).since(Condition.newly_requested())


def after_sources(cron: str = EVERY_TEN_MINUTES, newest_day: bool = False) -> dg.AutomationCondition:
    """Make the partitions whose sources got rows, late events included, and those that were never made.

    A day is requested again when one of its sources changes after the request, whatever became of the run: a run that
    fails is for somebody to look at. A source that goes on changing, or has no data of that day, keeps nothing back.
    What several assets want at one tick is one run or, of several days, one backfill.

    Args:
        cron: when requests are made at most.
        newest_day: whether only the newest day is requested, because its run makes all days that differ. Otherwise
            days that are apart are runs of their own: Dagster joins only adjacent days.
    """
    has_source = Condition.any_deps_match(~Condition.missing())
    never_made = (Condition.missing() & has_source).newly_true().since(Condition.newly_requested())
    when = Condition.cron_tick_passed(cron)
    return (
        (when & Condition.in_latest_time_window() if newest_day else when)
        & (_updated_since_request.with_label("sources_updated") | never_made.with_label("never_made"))
        & ~Condition.in_progress()
    ).with_label(f"after_sources({cron})")


def of_any_day(key: dg.AssetKey) -> dg.AssetDep:
    """A source whose rows of any day request the newest day downstream: late events, and states of yesterday."""
    return dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())


def after_snapshot() -> dg.AutomationCondition:
    """Make the partitions whose snapshot was stored without them: by a run of its own, or outside Dagster."""
    updated_since_update = Condition.any_deps_match(Condition.newly_updated()).since(Condition.newly_updated())
    return (
        updated_since_update.with_label("snapshot_newer")
        & _updated_since_request.with_label("not_requested")
        & ~Condition.in_progress()
    ).with_label("after_snapshot")


def after_asset() -> dg.AutomationCondition:
    """Make an asset without partitions after each update of one that it is made of."""
    return (_updated_since_request.with_label("updated") & ~Condition.in_progress()).with_label("after_asset")


automation_sensor = dg.AutomationConditionSensorDefinition(
    "automation_sensor",
    target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Makes assets after those that they are made of: histories stored days of which they miss, feature "
    "views the days whose sources changed, at most every minute.",
)
