"""Monitoring as Dagster sees it: asset checks from the contracts, and partitions that match the lake.

Checks: the ledger balances, stored rows keep to their rules, dead letters are few, events arrive.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from recsys_data.contracts import Contract, Kind
from recsys_data.contracts.servers import Reference
from recsys_data.days import day_key, day_number
from recsys_data.defs.monitoring import check_job as check_defs
from recsys_data.defs.monitoring.check_job import StreamCheck
from recsys_data.ingestion.batch.history.state import read_state
from recsys_data.ingestion.streaming.refused import as_markdown, summary
from recsys_data.monitoring.quality import RECENT, reference_counts, rule_counts, stored_rows
from recsys_data.monitoring.reconciliation import COUNTS, reconcile_lake
from recsys_data.settings import Settings
from recsys_data.storage.manifest_stats import days
from recsys_data.storage.tables import Lake

# A tick may take a minute; an event takes about 15 ms.
TOLD_PER_TICK = 400
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


def definitions(contracts: Mapping[str, Contract]) -> dg.Definitions:
    """Checks and sensor of the stream datasets."""
    checks = list(_checks(contracts))
    told = [n for n, contract in contracts.items() if contract.is_filled]
    own = dg.Definitions(asset_checks=[check.definition() for check in checks], sensors=[_partitions_sensor(told)])
    return dg.Definitions.merge(
        own, check_defs.definitions([check for check in checks if contracts[check.asset].is_stream])
    )


def _checks(contracts: Mapping[str, Contract]) -> Iterator[StreamCheck]:
    for contract in contracts.values():
        if contract.is_stream:
            yield _ledger_check(contract.name)
            if contract.is_fed_by_events:
                yield _rules_check(contract)
            for name, item in contract.checks.items():
                yield _quality_check(contract, name, item)
        for reference in contract.references:
            yield _reference_check(contract, reference)


def _ledger_check(name: str) -> StreamCheck:
    def ledger_balances(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
        found = reconcile_lake(lake, settings)
        faults = [fault.found for fault in found.faults if fault.dataset == name]
        own = found.stored[name]
        counts = {count.replace("_", " "): getattr(own.ledger, count) for count in COUNTS}
        rows = {"rows counted": own.ledger.rows, "rows stored": own.rows}
        return dg.AssetCheckResult(
            passed=not faults,
            severity=ERROR,
            description="; ".join(faults) or None,
            metadata={**counts, **rows, "rows removed": own.removed.rows},
        )

    return StreamCheck(
        name,
        "ledger_balances",
        "Nothing is lost or doubled: lines read = accepted + duplicates + dead letters, all stream tables agree on it, "
        "and the table's row count matches the ledger.",
        ledger_balances,
    )


def _rules_check(contract: Contract) -> StreamCheck:
    def row_rules(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
        counts = rule_counts(lake, contract, settings, datetime.now(UTC) - RECENT)
        table = "\n".join(f"| {reason} | {count} |" for reason, count in counts.broken.items())
        return dg.AssetCheckResult(
            passed=not any(counts.broken.values()),
            severity=ERROR,
            metadata={
                "rows judged": counts.rows,
                "rows that break a rule": sum(counts.broken.values()),
                "by rule": dg.MetadataValue.md(f"| rule | rows |\n|---|---|\n{table}"),
            },
        )

    return StreamCheck(
        contract.name, "row_rules", "No row stored in the last 24 hours breaks a rule of the contract.", row_rules
    )


def _reference_check(contract: Contract, reference: Reference) -> StreamCheck:
    def known(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
        counts = reference_counts(lake, contract, reference, datetime.now(UTC) - RECENT)
        return dg.AssetCheckResult(
            # Before there is a first snapshot there is nothing to know them by.
            passed=counts.known_keys == 0 or counts.share <= reference.max_unknown,
            severity=WARN,
            metadata={
                "share unknown": round(counts.share, 5),
                "at most": reference.max_unknown,
                "rows judged": counts.rows,
                "rows unknown": counts.unknown,
                f"keys in {reference.dataset}": counts.known_keys,
            },
        )

    return StreamCheck(
        contract.name,
        f"known_{reference.column}",
        f"At most {reference.max_unknown:.0%} of the rows stored in the last 24 hours have a "
        f"{reference.column} that no snapshot of {reference.dataset} ever had.",
        known,
    )


def _quality_check(contract: Contract, name: str, item: Mapping) -> StreamCheck:
    """A quality item of the contract that judges the dataset as a whole."""
    severity = WARN if item.get("severity") == "warning" else ERROR
    measure = _volume(contract, item) if item.get("metric") == "rowCount" else _share(contract, item)

    def quality(lake: Lake, settings: Settings) -> dg.AssetCheckResult:
        passed, metadata = measure(lake)
        return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)

    return StreamCheck(contract.name, name, item.get("description", ""), quality)


def _volume(contract: Contract, item: Mapping):
    def measure(lake: Lake) -> tuple[bool, dict]:
        rows = stored_rows(lake, contract, datetime.now(UTC) - RECENT)
        return rows > item["mustBeGreaterThan"], {
            "rows stored in 24 h": rows,
            "expected more than": item["mustBeGreaterThan"],
        }

    return measure


def _share(contract: Contract, item: Mapping):
    """The share of rejected lines: of all, or of those with the most frequent reason."""
    limits = item["implementation"]
    by_reason = "maxShareOfEventsPerReason" in limits
    most = limits["maxShareOfEventsPerReason" if by_reason else "maxShareOfEvents"]

    def measure(lake: Lake) -> tuple[bool, dict]:
        since = datetime.now(UTC) - RECENT
        found = summary(lake, since, [contract.name])
        rejected = sum(one.count for one in found)
        homes = [c for c in lake.contracts.values() if c.kind is Kind.EVENTS]
        accepted = sum(stored_rows(lake, home, since) for home in homes)
        judged = max((one.count for one in found), default=0) if by_reason else rejected
        share = judged / (rejected + accepted) if judged else 0.0
        return share <= most, {
            "share in 24 h": round(share, 5),
            "at most": most,
            "rejected": rejected,
            "accepted": accepted,
            "by reason": dg.MetadataValue.md(as_markdown(found)),
        }

    return measure


def _days_of(lake: Lake, name: str) -> dict[int, dict[str, Any]]:
    """The days (since 1970) that a dataset holds, or that its history is made of, with what there is to tell."""
    table = lake.table(name)
    if lake.contracts[name].kind is Kind.HISTORY:
        return {day_number(taken.day): {} for taken in read_state(table).days}
    return {day: {"dagster/partition_row_count": stats.rows} for day, stats in days(table).items()}


def _partitions_sensor(names: list[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name="lake_partitions_sensor",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells Dagster of days that were stored without it, e.g. by `recsys-data ingest`.",
    )
    def lake_partitions_sensor(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult:
        seen = json.loads(context.cursor or "{}")
        told: list[dg.AssetMaterialization] = []
        for name in names:
            if not lake.exists(name):
                continue
            table = lake.table(name)
            snapshot = str(table.metadata.current_snapshot_id)
            if seen.get(name) == snapshot:
                continue
            known = context.instance.get_materialized_partitions(dg.AssetKey(name))
            stored = _days_of(lake, name)
            missing = [day for day in sorted(stored, reverse=True) if day_key(day) not in known]
            room = TOLD_PER_TICK - len(told)
            told += [
                dg.AssetMaterialization(name, partition=day_key(day), metadata=stored[day]) for day in missing[:room]
            ]
            if len(missing) <= room:
                seen[name] = snapshot
        skip = None if told else "Dagster knows every day of the lake"
        return dg.SensorResult(skip_reason=skip, cursor=json.dumps(seen), asset_events=told)

    return lake_partitions_sensor
