"""Replay of dead letters as Dagster sees it: a job that is launched by hand, with a filter as its config.

Run alone: `dagster job launch -j replay_dead_letters -m recsys_data.definitions`.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter


class DeadLettersConfig(dg.Config):
    """Filters dead letters (times in ISO 8601, UTC unless they carry an offset); `discard` drops them for good."""

    reason: str | None = None
    dataset: str | None = None
    since: str | None = None
    until: str | None = None
    discard: bool = False


@dg.op(description="Replays dead letters that the contracts accept now; the next drain stores them.")
def replay_or_discard(
    context: dg.OpExecutionContext,
    config: DeadLettersConfig,
    event_log: dg.ResourceParam[EventLog],
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
) -> None:
    from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter, count, holders
    from recsys_data.ingestion.streaming.replay import discard, replay

    meant = _meant(config)
    told: list[int] = []
    stay: dict[str, int] = {}
    try:
        if config.discard:
            discard(lake, settings, meant, told.append)
        else:
            stay = dict(replay(lake, event_log, settings, meant, told.append).most_common())
    except Transient as error:
        raise dg.RetryRequested(max_retries=3, seconds_to_wait=60) from error
    outcome = "discarded" if config.discard else "replayed"
    metadata = {
        outcome: sum(told),
        "not replayed, by reason": dg.MetadataValue.json(stay),
        "remaining, by reason": dg.MetadataValue.json(count(lake, DeadLetterFilter())),
    }
    for table in holders(lake):
        context.log_event(dg.AssetObservation(table.name()[-1], metadata=metadata))


@dg.job(description="Replays dead letters after a contract was changed, or discards them (`discard: true`).")
def replay_dead_letters() -> None:
    replay_or_discard()


def _meant(config: DeadLettersConfig) -> "DeadLetterFilter":
    from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter

    if config.discard and not config.reason:
        raise dg.Failure(
            "Name the reason of the dead letters to discard: `reason: malformed_json`.", allow_retries=False
        )
    return DeadLetterFilter(
        config.reason,
        config.dataset,
        _moment("since", config.since),
        # What is rejected from now on is not meant.
        _moment("until", config.until) or datetime.now(UTC),
    )


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise dg.Failure(
            f"{name} is {text!r}; expected a time such as 2026-11-25T10:00:00Z.", allow_retries=False
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
