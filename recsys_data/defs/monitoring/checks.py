"""Asset checks from the contracts: one mechanism for streams and snapshots.

A check is a function of the lake. Those of streams run by themselves (`check_job.py`); those of snapshots run in the
op that stores the snapshot, because that op fails for a snapshot on hold and would leave later steps out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from recsys_data.contracts.model import Column, Contract, Kind, history_name
from recsys_data.contracts.servers import Reference
from recsys_data.defs.ingestion.reporting import rejections
from recsys_data.defs.markdown import table
from recsys_data.defs.monitoring import bots_check, drift_check, feedback_check, parity_check
from recsys_data.ingestion.batch.quarantine import quarantined
from recsys_data.ingestion.streaming.rejected import summary
from recsys_data.monitoring.drift.columns import is_watched
from recsys_data.monitoring.quality import RECENT, reference_counts, rule_counts, stored_rows
from recsys_data.monitoring.reconciliation import COUNTS, reconcile_lake
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

INTERACTIONS = "interactions"
MISSING_SHOWN = 30
DAILY = "0 4 * * *"
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """A check of a dataset: its name, and what evaluates it."""

    asset: str
    name: str
    description: str
    evaluate: Callable[[Lake, Settings, DuckDBResource], dg.AssetCheckResult]
    blocking: bool = False
    condition: dg.AutomationCondition | None = None

    @property
    def key(self) -> dg.AssetCheckKey:
        return dg.AssetCheckKey(dg.AssetKey(self.asset), self.name)

    def spec(self) -> dg.AssetCheckSpec:
        """The check as part of the op that stores the dataset."""
        return dg.AssetCheckSpec(self.name, asset=self.asset, description=self.description, blocking=self.blocking)

    def result(self, lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        """What it finds now."""
        return self.evaluate(lake, settings, duckdb)._replace(asset_key=self.key.asset_key, check_name=self.name)

    def definition(self) -> dg.AssetChecksDefinition:
        """The check as a step of its own."""

        @dg.asset_check(
            asset=self.asset, name=self.name, description=self.description, automation_condition=self.condition
        )
        def check(
            lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings], duckdb: DuckDBResource
        ) -> dg.AssetCheckResult:
            return self.result(lake, settings, duckdb)

        return check


def checks_of(contract: Contract) -> Iterator[DatasetCheck]:
    """The checks of a dataset that are steps of their own."""
    if contract.is_stream:
        yield _ledger_check(contract.name)
        if contract.is_fed_by_events:
            yield _rules_check(contract)
        for name, item in contract.checks.items():
            yield _quality_check(contract, name, item)
    if contract.name == INTERACTIONS and contract.is_stream:
        yield _feedback_check(contract)
        yield _parity_check(contract)
        yield _bots_check(contract)
    if contract.kind is Kind.FEATURE_VIEW:
        yield _leakage_check(contract)
    if is_watched(contract) and not contract.is_snapshot:
        yield replace(_drift_check(contract), condition=dg.AutomationCondition.on_cron(DAILY))
    for reference in contract.references:
        yield _reference_check(contract, reference)
    for column in contract.columns:
        if column.same_as and contract.is_fed_by_events:
            yield _same_as_check(contract, column)


def snapshot_checks(contract: Contract) -> list[DatasetCheck]:
    """The checks of a snapshot dataset and its history that run in the op that stores them."""
    name = contract.name

    def change_within_limits(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        held = {str(one.day): one.violation for one in quarantined(settings, name)}
        return _result(not held, ERROR, {"on hold": dg.MetadataValue.json(held)})

    def days_complete(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.ingestion.batch.partitions import expected_day, missing_days, stored_days

        stored, missing = stored_days(lake, name), missing_days(lake, contract)
        due = expected_day(contract, datetime.now(UTC))
        metadata = {
            "expected": due.isoformat(),
            "newest": stored[-1].isoformat() if stored else "none",
            "missing between": len(missing),
            "missing days": dg.MetadataValue.json([str(day) for day in missing[-MISSING_SHOWN:]]),
        }
        return _result(due in stored, WARN, metadata)

    def rows_accepted(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.ingestion.batch.partitions import stored_days
        from recsys_data.ingestion.batch.snapshot import rejected_rows

        stored = stored_days(lake, name)
        rejected = rejected_rows(lake, name, stored[-1]) if stored else {}
        metadata = {"rejected": sum(rejected.values()), "by reason": dg.MetadataValue.json(rejected)}
        return _result(not rejected, WARN, metadata)

    def periods_do_not_overlap(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.ingestion.batch.history.update import overlaps

        count = overlaps(lake, name)
        return _result(count == 0, ERROR, {"overlaps": count})

    return [
        DatasetCheck(
            name,
            "change_within_limits",
            "Fails if a snapshot is on hold because it lost or changed more than the contract allows. The last good "
            "snapshot stays published until someone accepts the new one.",
            change_within_limits,
            blocking=True,
        ),
        DatasetCheck(
            name,
            "days_complete",
            "The snapshot that is expected by now is stored. Missing days between the first and the last are listed.",
            days_complete,
        ),
        DatasetCheck(
            name,
            "rows_accepted",
            "No row of the newest day was rejected. Rejections are counted by reason.",
            rows_accepted,
        ),
        DatasetCheck(
            history_name(name),
            "periods_do_not_overlap",
            "At any moment each key has at most one current row.",
            periods_do_not_overlap,
        ),
        *([_drift_check(contract)] if is_watched(contract) else []),
    ]


def _result(passed: bool, severity: dg.AssetCheckSeverity, metadata: Mapping) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)


def _ledger_check(name: str) -> DatasetCheck:
    def ledger_balances(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
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

    return DatasetCheck(
        name,
        "ledger_balances",
        "Nothing is lost or doubled: lines read = accepted + duplicates + dead letters, all stream tables agree on it, "
        "and the table's row count matches the ledger.",
        ledger_balances,
    )


def _rules_check(contract: Contract) -> DatasetCheck:
    def row_rules(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        with duckdb.get_connection() as connection:
            counts = rule_counts(connection, lake, contract, settings, datetime.now(UTC) - RECENT)
        return dg.AssetCheckResult(
            passed=not any(counts.broken.values()),
            severity=ERROR,
            metadata={
                "rows checked": counts.rows,
                "rows that break a rule": sum(counts.broken.values()),
                "by rule": dg.MetadataValue.md(table(["rule", "rows"], counts.broken.items())),
            },
        )

    return DatasetCheck(
        contract.name, "row_rules", "No row stored in the last 24 hours breaks a rule of the contract.", row_rules
    )


def _reference_check(contract: Contract, reference: Reference) -> DatasetCheck:
    def known(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        with duckdb.get_connection() as connection:
            counts = reference_counts(connection, lake, contract, reference, datetime.now(UTC) - RECENT)
        return dg.AssetCheckResult(
            # Before there is a first snapshot there is nothing to know them by.
            passed=counts.known_keys == 0 or counts.share <= reference.max_unknown,
            severity=WARN,
            metadata={
                "share unknown": round(counts.share, 5),
                "at most": reference.max_unknown,
                "rows checked": counts.rows,
                "rows unknown": counts.unknown,
                f"keys in {reference.dataset}": counts.known_keys,
            },
        )

    return DatasetCheck(
        contract.name,
        f"known_{reference.column}",
        f"At most {reference.max_unknown:.0%} of the rows stored in the last 24 hours have a "
        f"{reference.column} that no snapshot of {reference.dataset} ever had.",
        known,
    )


def _same_as_check(contract: Contract, column: Column) -> DatasetCheck:
    same = column.same_as
    assert same

    def repeats(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.monitoring.repeated import differences

        with duckdb.get_connection() as connection:
            found = differences(connection, lake, contract, column, datetime.now(UTC) - RECENT)
        metadata: dict[str, Any] = {
            "share different": round(found.share, 5),
            "at most": same.most_different,
            "rows compared": found.rows,
            "rows different": found.different,
        }
        if not column.classification:
            head = ["key", "in the event", f"in {same.dataset}"]
            metadata["examples"] = dg.MetadataValue.md(table(head, found.examples))
        return _result(found.share <= same.most_different, WARN, metadata)

    return DatasetCheck(
        contract.name,
        f"{column.name}_as_in_{same.dataset}",
        f"At most {same.most_different:.0%} of the rows stored in the last 24 hours have another {column.name} than "
        f"{same.dataset} had at that moment or a day later.",
        repeats,
    )


def _leakage_check(contract: Contract) -> DatasetCheck:
    def no_leakage(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.features.leakage import leaks

        found = leaks(lake, contract.name)
        rows = [[one.feature, one.entity, one.moment, one.value, one.value_then] for one in found]
        head = ["feature", "entity", "moment", "value", "value without the future"]
        return dg.AssetCheckResult(
            passed=not found,
            metadata={"features that know the future": len(found), "found": dg.MetadataValue.md(table(head, rows))},
        )

    return DatasetCheck(
        contract.name,
        "no_leakage",
        "Of a sample, no feature changes when everything is removed that happened or became known later. Daily.",
        no_leakage,
        condition=dg.AutomationCondition.on_cron(DAILY),
    )


def _drift_check(contract: Contract) -> DatasetCheck:
    def drifted(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.monitoring.drift import drift

        return drift_check.result_of(drift(lake, settings, contract.name))

    return DatasetCheck(contract.name, "drift", drift_check.DESCRIPTION, drifted)


def _feedback_check(contract: Contract) -> DatasetCheck:
    def feedback_loop(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.monitoring.feedback import feedback

        return feedback_check.result_of(feedback(lake, settings))

    condition = dg.AutomationCondition.on_cron(DAILY)
    return DatasetCheck(contract.name, "feedback_loop", feedback_check.DESCRIPTION, feedback_loop, condition=condition)


def _bots_check(contract: Contract) -> DatasetCheck:
    def bots(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.monitoring.bots import bots

        return bots_check.result_of(bots(lake))

    condition = dg.AutomationCondition.on_cron(DAILY)
    return DatasetCheck(contract.name, "bots", bots_check.DESCRIPTION, bots, condition=condition)


def _parity_check(contract: Contract) -> DatasetCheck:
    def parity(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        from recsys_data.features.parity import parity

        return parity_check.result_of(parity(lake, datetime.now(UTC) - RECENT))

    condition = dg.AutomationCondition.on_cron(DAILY)
    return DatasetCheck(contract.name, "parity", parity_check.DESCRIPTION, parity, condition=condition)


def _quality_check(contract: Contract, name: str, item: Mapping) -> DatasetCheck:
    """A quality item of the contract that judges the dataset as a whole."""
    severity = WARN if item.get("severity") == "warning" else ERROR
    measure = _volume(contract, item) if item.get("metric") == "rowCount" else _share(contract, item)

    def quality(lake: Lake, settings: Settings, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        with duckdb.get_connection() as connection:
            passed, metadata = measure(connection, lake)
        return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)

    return DatasetCheck(contract.name, name, item.get("description", ""), quality)


def _volume(contract: Contract, item: Mapping):
    def measure(connection: "DuckDBPyConnection", lake: Lake) -> tuple[bool, dict]:
        rows = stored_rows(connection, lake, contract, datetime.now(UTC) - RECENT)
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

    def measure(connection: "DuckDBPyConnection", lake: Lake) -> tuple[bool, dict]:
        since = datetime.now(UTC) - RECENT
        found = summary(lake, since, [contract.name])
        rejected = sum(one.count for one in found)
        homes = [c for c in lake.contracts.values() if c.kind is Kind.EVENTS]
        accepted = sum(stored_rows(connection, lake, home, since) for home in homes)
        judged = max((one.count for one in found), default=0) if by_reason else rejected
        share = judged / (rejected + accepted) if judged else 0.0
        return share <= most, {
            "share in 24 h": round(share, 5),
            "at most": most,
            "rejected": rejected,
            "accepted": accepted,
            "by reason": rejections(found),
        }

    return measure
