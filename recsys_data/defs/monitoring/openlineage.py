"""Lineage for other systems: runs of assets as OpenLineage events, where `OPENLINEAGE_URL` names a receiver.

Data flow: Dagster's event log -> START, COMPLETE and FAIL of each asset, with the assets that it is made of and its
columns -> HTTP. The sensor of `dagster-openlineage` sends no inputs, so this one uses its adapter. Needs the extra
`recsys-data[openlineage]`.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from recsys_data.errors import UserError
from recsys_data.settings import variable

if TYPE_CHECKING:
    from dagster_openlineage.adapter import OpenLineageAdapter

URL = "OPENLINEAGE_URL"
INTERVAL_SECONDS = 30
# Of each type and tick; more wait for the next.
MOST = 200
TYPES = (
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_FAILED_TO_MATERIALIZE,
)


def definitions() -> dg.Definitions:
    """The sensor, if a receiver is named.

    Raises:
        UserError: it is, and the extra is not installed.
    """
    if not variable(URL):
        return dg.Definitions()
    try:
        from dagster_openlineage.adapter import OpenLineageAdapter
    except ImportError:
        raise UserError(
            f"{URL} is set, but dagster-openlineage is not installed: pip install 'recsys-data[openlineage]'."
        ) from None
    adapter = OpenLineageAdapter()

    @dg.sensor(
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Sends runs of assets to the OpenLineage receiver that {URL} names. What cannot be sent is logged "
        "and lost. Starts no run.",
    )
    def openlineage_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        assert context.repository_def is not None
        after = int(context.cursor) if context.cursor else None
        sent, last = send_new(adapter, context.instance, context.repository_def.asset_graph, after)
        if last is not None:
            context.update_cursor(str(last))
        return dg.SkipReason(f"{sent} events were sent.")

    return dg.Definitions(sensors=[openlineage_sensor])


def send_new(
    adapter: "OpenLineageAdapter", instance: dg.DagsterInstance, graph: Any, after: int | None
) -> tuple[int, int | None]:
    """Send what Dagster recorded after a position of its event log.

    Args:
        adapter: sends.
        instance: where records are.
        graph: the assets, with what each is made of.
        after: None: at the first time, only what comes from now on.

    Returns:
        How many events were sent, and the new position.
    """
    if after is None:
        newest = [_records(instance, kind, None, 1, ascending=False) for kind in TYPES]
        return 0, max((one.storage_id for found in newest for one in found), default=0)
    found = [_records(instance, kind, after, MOST, ascending=True) for kind in TYPES]
    # Records of a type that has more wait, with those of the others that came after them.
    until = min((records[-1].storage_id for records in found if len(records) == MOST), default=None)
    records = sorted((one for records in found for one in records), key=lambda one: one.storage_id)
    records = [one for one in records if until is None or one.storage_id <= until]
    for one in records:
        _send(adapter, graph, one.event_log_entry)
    return len(records), records[-1].storage_id if records else after


def _records(instance: dg.DagsterInstance, kind: dg.DagsterEventType, after: int | None, most: int, ascending: bool):
    wanted = dg.EventRecordsFilter(kind, after_cursor=after)
    # The same of the instance warns that it will go; what replaces it knows no planned materializations.
    return list(instance.event_log_storage.get_event_records(wanted, limit=most, ascending=ascending))


def _send(adapter: "OpenLineageAdapter", graph: Any, entry: dg.EventLogEntry) -> None:
    event = entry.get_dagster_event()
    key, at = event.asset_key, entry.timestamp
    if key is None:
        return
    if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
        adapter.asset_materialization_planned(key, entry.run_id, at)
    elif event.event_type is dg.DagsterEventType.ASSET_FAILED_TO_MATERIALIZE:
        adapter.asset_failed_to_materialize(key, entry.run_id, at, partition_key=event.partition)
    else:
        node = graph.get(key) if graph.has(key) else None
        made = event.step_materialization_data.materialization
        adapter.asset_materialization(
            key,
            entry.run_id,
            at,
            # Columns and their lineage are said once, with the definition.
            metadata={**(node.metadata if node else {}), **made.metadata},
            upstream_asset_keys=sorted(node.parent_keys) if node else (),
            partition_key=made.partition,
        )
