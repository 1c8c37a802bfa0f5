"""Checks of the batch side: snapshots that are due or on hold, and whether their sources can be reached."""

from datetime import UTC, datetime

from recsys_data.contracts.model import Contract
from recsys_data.contracts.servers import Server
from recsys_data.errors import RecsysDataError, Transient, UserError
from recsys_data.ingestion.batch.partitions import expected_day, missing_days, stored_days
from recsys_data.ingestion.batch.quarantine import quarantined
from recsys_data.monitoring.doctor.deployment import Deployment
from recsys_data.monitoring.doctor.findings import Finding, ok, warning
from recsys_data.sources.extract import days_available, extract
from recsys_data.sources.locations import files_of_day, named, no_files
from recsys_data.sources.source import ColumnRequest, is_live


def snapshots(there: Deployment, contract: Contract) -> list[Finding]:
    """Whether the snapshot that is due is there, and none is on hold."""
    name = f"snapshots of {contract.name}"
    found = [
        warning(
            name,
            f"that of {taken.day} is on hold: {taken.violation}",
            f"Look at it; then `recsys-data snapshot accept {contract.name} {taken.day}`, or fix the source.",
        )
        for taken in quarantined(there.settings, contract.name)
    ]
    stored = stored_days(there.lake, contract.name) if there.lake else []
    if not stored:
        advice = f"Deliver a state to its source, then `recsys-data snapshot take {contract.name}`."
        return [*found, warning(name, "none was ever taken", advice)]
    due = expected_day(contract, datetime.now(UTC))
    missing = len(missing_days(there.lake, contract)) if there.lake else 0
    said = f"{len(stored):,} days, the newest {stored[-1]}" + (f"; {missing:,} between have none" if missing else "")
    if stored[-1] < due:
        advice = f"Look at its schedule and its source, then `recsys-data snapshot take {contract.name}`."
        return [*found, warning(name, f"{said}; that of {due} is due and not there", advice)]
    return [*found, ok(name, said)]


def source(there: Deployment, contract: Contract, server: Server) -> list[Finding]:
    """Whether a server of a contract can be reached and has something to take. Messages hold no passwords.

    Raises:
        UserError: it is not as the contract says.
        Transient: it does not answer.
    """
    try:
        return _source(there, contract, server)
    except RecsysDataError:
        raise
    except Exception as error:
        # What it says is left out, because it may hold a password.
        raise Transient(f"{named(server)} cannot be checked: {type(error).__name__}. Fix its location.") from None


def _source(there: Deployment, contract: Contract, server: Server) -> list[Finding]:
    name = f"source {server.name} of {contract.name}"
    today = datetime.now(UTC).date()
    if server.is_database:
        wanted = [
            ColumnRequest(column.name, column.type, server.columns.get(column.name, ".".join(column.source)))
            for column in contract.columns
            if column.name in server.columns or (column.key and not column.system)
        ]
        with extract(server, wanted, today, there.settings.data_dir) as opened:
            lacking = {column.name for column in wanted} - set(opened.columns)
        if lacking:
            raise UserError(f"{named(server)} has no column for {', '.join(sorted(lacking))}. Fix its `columns`.")
        return [ok(name, f"{named(server)} answers")]
    if is_live(server):
        listing = files_of_day(server, there.settings.data_dir, today)[1]()
        if not listing.files:
            raise no_files(server, there.settings.data_dir, today, listing)
        return [ok(name, f"{named(server)}: {len(listing.files):,} files")]
    days = days_available(server, there.settings.data_dir) or []
    if not days:
        return [
            warning(name, f"{named(server)}: no folder of any day", "Deliver one, or fix `servers` of the contract.")
        ]
    return [ok(name, f"{named(server)}: {len(days):,} days, the newest {days[-1]}")]
