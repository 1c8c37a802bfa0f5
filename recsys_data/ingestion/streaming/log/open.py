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
    if scheme == "kafka":
        return _kafka(settings)
    raise UserError(
        f"Setting RECSYS_DATA_EVENT_LOG begins with {scheme!r}: expected `embedded` or "
        "`kafka://HOST:9092/TOPIC`. Change or unset it."
    )


def _kafka(settings: Settings) -> EventLog:
    try:
        from recsys_data.ingestion.streaming.log.kafka.log import KafkaLog
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise UserError(
            "Setting RECSYS_DATA_EVENT_LOG names Kafka, whose client is not installed. Install it with "
            "`pip install 'recsys-data[kafka]'`."
        ) from None
    return KafkaLog(settings.event_log, partitions=settings.log_partitions)
