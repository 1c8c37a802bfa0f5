"""The event log that the settings name; the only place that knows which backends there are."""

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.settings import Settings


def open_log(settings: Settings) -> EventLog:
    """Open the event log of `settings.event_log`.

    Raises:
        UserError: no backend of that name, or its place cannot be used.
    """
    # The scheme alone is shown and used: the rest of a URL may hold a password.
    scheme = settings.event_log.partition(":")[0]
    if settings.event_log == "embedded":
        return EmbeddedLog(settings.log_dir, partitions=settings.log_partitions, segment_bytes=settings.segment_bytes)
    raise UserError(
        f"Setting RECSYS_DATA_EVENT_LOG begins with {scheme!r}: expected `embedded`, the only one "
        "there is. Change or unset it."
    )
