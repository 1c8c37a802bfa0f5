"""The days of a snapshot dataset: those that are stored, available in the sources, expected by now, and missing."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from recsys_data.contracts.model import Contract
from recsys_data.days import date_of
from recsys_data.ingestion.batch.quarantine import quarantined
from recsys_data.ingestion.batch.retention import kept_since
from recsys_data.settings import Settings
from recsys_data.sources.extract import days_available
from recsys_data.sources.source import is_live
from recsys_data.storage.iceberg.manifest_stats import days
from recsys_data.storage.tables import Lake


def snapshot_date_of(contract: Contract, moment: datetime) -> date:
    """The day whose snapshot a run at that moment reads.

    A live source gives the day of the moment (UTC); day folders give the day before, which is over.
    """
    today = moment.astimezone(UTC).date()
    return today if _is_live(contract) else today - timedelta(days=1)


def expected_day(contract: Contract, now: datetime) -> date:
    """The newest day whose snapshot has to be stored by now."""
    schedule = contract.schedule
    if schedule is None:
        raise ValueError(f"{contract.name} has no schedule")
    here = now.astimezone(ZoneInfo(schedule.timezone))
    hour, minute = map(int, schedule.deadline.split(":"))
    deadline = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if deadline > here:
        deadline -= timedelta(days=1)
    return snapshot_date_of(contract, deadline)


def stored_days(lake: Lake, name: str) -> list[date]:
    """The days whose snapshot is in the lake, oldest first."""
    if not lake.exists(name):
        return []
    return [date_of(number) for number in sorted(days(lake.table(name)))]


def available_days(contract: Contract, settings: Settings) -> list[date]:
    """The days that every source can be read for now, oldest first."""
    if _is_live(contract):
        return [datetime.now(UTC).date()]
    found = [set(days_available(server, settings.data_dir) or []) for server in contract.servers]
    return sorted(set.intersection(*found))


def arrived_days(lake: Lake, contract: Contract, settings: Settings) -> list[date]:
    """Available days that are over, within the retention, and neither stored nor in quarantine, oldest first.

    A live source is left to its schedule, except before its first snapshot.
    """
    stored = set(stored_days(lake, contract.name))
    if _is_live(contract):
        return [] if stored else available_days(contract, settings)
    done = stored | {result.day for result in quarantined(settings, contract.name)}
    now = datetime.now(UTC)
    oldest = kept_since(lake, contract.name, now)
    return [day for day in available_days(contract, settings) if oldest <= day < now.date() and day not in done]


def missing_days(lake: Lake, contract: Contract) -> list[date]:
    """Days between the first and the last stored snapshot that have none, oldest first."""
    stored = stored_days(lake, contract.name)
    if not stored:
        return []
    every = {stored[0] + timedelta(days=n) for n in range((stored[-1] - stored[0]).days)}
    return sorted(every - set(stored))


def _is_live(contract: Contract) -> bool:
    return any(is_live(server) for server in contract.servers)
