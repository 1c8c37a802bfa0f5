"""Appending to a topic: an idempotent producer that waits for all in-sync replicas.

Lines are keyed by user, or by anonymous id, so that a redelivery comes to the partition of its first delivery. Lines
without either break the contract; they go to partition 0.
"""

import logging
import time
from collections.abc import Sequence

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.ingestion.streaming.log import Appended
from recsys_data.ingestion.streaming.log.kafka.address import SETTING, KafkaAddress
from recsys_data.ingestion.streaming.log.kafka.foreign import headers_of

logger = logging.getLogger(__name__)

# The broker's last word on a message may come a little after its time is over.
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.1
# Librdkafka's mark of no partition.
BY_KEY = -1


class _Ids(msgspec.Struct):
    user_id: str | None = None
    anonymous_id: str | None = None


_IDS = msgspec.json.Decoder(_Ids)


def key_of(line: bytes) -> str | None:
    """What a line is keyed by; None for one that names nobody.

    >>> key_of(b'{"anonymous_id":"a1","user_id":"u1"}'), key_of(b'{"anonymous_id":"a1"}'), key_of(b"no JSON")
    ('u1', 'a1', None)
    """
    try:
        ids = _IDS.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return ids.user_id or ids.anonymous_id or None


class TopicProducer:
    """Appends to one topic; not thread-safe.

    Attributes:
        is_spent: it must not be used again.
    """

    def __init__(self, address: KafkaAddress, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._failure = ""
        self.is_spent = False
        try:
            self._producer = Producer(
                {**address.producer(seconds), "error_cb": self._remember}, logger=logging.getLogger("confluent_kafka")
            )
        except KafkaException as error:
            raise refused_option(error) from None

    def append(self, lines: Sequence[bytes]) -> Appended | None:
        """Append lines, in order for each key; they are on all in-sync replicas when this returns.

        Raises:
            Transient: some were not acknowledged in time.
            Permanent: the topic does not take a line, or not from this user.
        """
        done: list[tuple[int, int]] = []
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error:
                failed.append(error)
            else:
                done.append((message.partition() or 0, message.offset() or 0))

        deadline = time.monotonic() + self._seconds + GRACE_SECONDS
        for line in lines:
            try:
                self._produce(line, delivered, deadline)
            except KafkaException as error:
                failed.append(error.args[0])
                break
        left = self._producer.flush(self._seconds + GRACE_SECONDS)
        # One that holds lines back, or has lost its place in the order, is not used again.
        self.is_spent = left > 0 or any(error.fatal() for error in failed)
        if failed or len(done) < len(lines):
            raise self._failed(len(done), len(lines), failed)
        return _place(done)

    def _produce(self, line: bytes, delivered, deadline: float) -> None:
        key = key_of(line)
        partition = 0 if key is None else BY_KEY
        headers = headers_of(line)
        while True:
            try:
                self._producer.produce(
                    self._address.topic, line, key, partition, headers=headers, on_delivery=delivered
                )
            except BufferError:
                # Earlier lines must leave the queue first, or fail.
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
                self._producer.poll(POLL_SECONDS)
            else:
                return

    def _failed(self, done: int, count: int, failed: list[KafkaError]) -> Exception:
        if self.is_spent:
            self._producer.purge()
        code = failed[0].code() if failed else KafkaError._MSG_TIMED_OUT
        found = f"{count - done} of {count} lines were not appended to {self._address}"
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return Permanent(
                f"{found}: one is larger than the topic takes. Raise `max.message.bytes` of the topic and the option "
                "`message.max.bytes` of RECSYS_DATA_EVENT_LOG."
            )
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            return Permanent(f"{found}: {failed[0].str()}. Allow this user to write to the topic.")
        why = failed[0].str() if failed else "no answer"
        last = f" ({self._failure})" if self._failure else ""
        return Transient(f"{found}: {why}{last}. Look after the broker, then append them again.")

    def _remember(self, error: KafkaError) -> None:
        # That all brokers are down follows on the reason why.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._failure = error.str()


def _place(done: list[tuple[int, int]]) -> Appended | None:
    """Where lines are, if they are the lines of one range."""
    partitions = {partition for partition, _ in done}
    offsets = [offset for _, offset in done]
    if len(partitions) != 1 or max(offsets) - min(offsets) + 1 != len(offsets):
        return None
    return Appended(partitions.pop(), min(offsets), max(offsets) + 1)


def refused_option(error: KafkaException) -> UserError:
    """What librdkafka says about a property that it does not know, or a value that it does not take."""
    found: KafkaError = error.args[0]
    # Its message repeats the value.
    names = found.str().split('"')
    option = f" {names[1]!r}" if len(names) > 1 and "=" not in names[1] else ""
    return UserError(
        f"{SETTING} has an option{option} that Kafka's client (librdkafka) does not take as it is given. Correct its "
        "name or value, or leave it out."
    )
