"""Which day's snapshot is due when, and which days have none."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from recsys_data.contracts.model import Contract
from recsys_data.ingestion.batch.quarantine import held_back
from recsys_data.ingestion.batch.retention import kept_since
from recsys_data.ingestion.batch.snapshot import stored_days, takeable_days
from recsys_data.settings import Settings
from recsys_data.sources.source import is_live
from recsys_data.storage.tables import Lake


def taken_on(contract: Contract, moment: datetime) -> date:
    """The day whose snapshot a run at that moment takes.

    What knows only today gives the day of the moment (UTC); day folders give the day before, which is over.
    """
    today = moment.astimezone(UTC).date()
    return today if any(is_live(server) for server in contract.servers) else today - timedelta(days=1)


def due_day(contract: Contract, now: datetime) -> date:
    """The newest day whose snapshot has to be there by now."""
    schedule = contract.schedule
    if schedule is None:
        raise ValueError(f"{contract.name} has no schedule")
    here = now.astimezone(ZoneInfo(schedule.timezone))
    hour, minute = map(int, schedule.deadline.split(":"))
    deadline = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if deadline > here:
        deadline -= timedelta(days=1)
    return taken_on(contract, deadline)


def pending_days(lake: Lake, contract: Contract, settings: Settings) -> list[date]:
    """Days that the sources have, that are over, kept, and that nobody has taken yet, oldest first.

    What knows only today is left to its schedule, except before its first snapshot.
    """
    stored = set(stored_days(lake, contract.name))
    if any(is_live(server) for server in contract.servers):
        return [] if stored else takeable_days(contract, settings)
    done = stored | {taken.day for taken in held_back(settings, contract.name)}
    today = datetime.now(UTC).date()
    oldest = kept_since(lake, contract.name, datetime.now(UTC))
    return [day for day in takeable_days(contract, settings) if oldest <= day < today and day not in done]


def missing_days(lake: Lake, contract: Contract) -> list[date]:
    """Days between the first and the last stored snapshot that have none, oldest first."""
    stored = stored_days(lake, contract.name)
    if not stored:
        return []
    every = {stored[0] + timedelta(days=n) for n in range((stored[-1] - stored[0]).days)}
    return sorted(every - set(stored))
