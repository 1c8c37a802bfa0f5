"""The event log in a topic of Apache Kafka.

Data flow: append -> the partition of the line's user -> broker -> read. A position is an offset of Kafka. How far the
lake has read is kept in the lake alone; see docs/decisions/0015-kafka.md.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.ingestion.streaming.log import Appended, LogSlice
from recsys_data.ingestion.streaming.log.kafka.address import SETTING, parse_address
from recsys_data.ingestion.streaming.log.kafka.producer import TopicProducer, refused_option
from recsys_data.ingestion.streaming.log.kafka.reader import PartitionReader, beyond_end, unreachable
from recsys_data.ingestion.streaming.log.lines import joined

CLIENT_LOGGER = logging.getLogger("confluent_kafka")
# How long the number of partitions is believed.
PARTITIONS_SECONDS = 2.0
AGAIN_SECONDS = 0.05
FORBIDDEN = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


class KafkaLog:
    """The event log in one topic. Thread-safe. Nothing is contacted before the first use.

    Besides what `EventLog` lists, every method raises Transient if no broker answers within `wait_seconds`, and
    UserError if the topic is missing.
    """

    unit = "lines"

    def __init__(self, url: str, *, partitions: int = 4, wait_seconds: float = 8.0) -> None:
        """Name the topic of a URL (see `address.py`).

        Args:
            url: where the topic is.
            partitions: how many partitions a topic gets that is created.
            wait_seconds: how long a call waits for the broker.

        Raises:
            UserError: the URL or one of its options cannot be used.
        """
        self._address = parse_address(url)
        self._new_partitions = partitions
        self._wait_seconds = wait_seconds
        self._lock = threading.RLock()
        self._appending = threading.Lock()
        self._producer: TopicProducer | None = None
        self._consumer: Consumer | None = None
        self._readers: dict[int, PartitionReader] = {}
        self._found: tuple[float, tuple[int, ...]] = (float("-inf"), ())
        self._failure = ""
        # Tells at once which option is wrong.
        self._connect().close()

    def append(self, lines: Sequence[bytes]) -> Appended | None:
        """See `EventLog.append`. Gives where lines are if they are in one partition."""
        if not lines:
            return None
        joined(lines)
        with self._appending:
            if self._producer is None:
                self.partitions()
                self._producer = TopicProducer(self._address, self._wait_seconds)
            try:
                return self._producer.append(lines)
            except Transient:
                if self._producer.is_spent:
                    self._producer = None
                raise

    def partitions(self) -> Sequence[int]:
        """See `EventLog.partitions`. There may be more of them later."""
        with self._lock:
            known, found = self._found
            if time.monotonic() - known > PARTITIONS_SECONDS:
                found = self._ask_partitions()
                self._found = (time.monotonic(), found)
            return found

    def begin_offsets(self) -> Mapping[int, int]:
        """See `EventLog.begin_offsets`."""
        return {partition: self._ends(partition)[0] for partition in self.partitions()}

    def end_offsets(self) -> Mapping[int, int]:
        """See `EventLog.end_offsets`."""
        return {partition: self._ends(partition)[1] for partition in self.partitions()}

    def read(self, partition: int, start: int, max_bytes: int) -> LogSlice:
        """See `EventLog.read`. Each line ends with a newline; lines of other producers are made native lines."""
        return self._reader(partition).read(start, max_bytes)

    def count(self, partition: int, start: int) -> int:
        """See `EventLog.count`. Counts positions: of a topic that is compacted or written in transactions, too many."""
        self._must_have(partition)
        oldest, end = self._ends(partition)
        if start > end:
            raise beyond_end(self._address, partition, start, end)
        return end - max(start, oldest)

    def prune(self, consumed: Mapping[int, int], older_than: timedelta) -> int:
        """Deletes nothing: how long a topic keeps its records is its own `retention.ms`."""
        return 0

    def close(self) -> None:
        """See `EventLog.close`. What is called later connects again."""
        with self._appending, self._lock:
            self._producer = None
            for reader in self._readers.values():
                reader.close()
            self._readers = {}
            if self._consumer:
                self._consumer.close()
                self._consumer = None

    def _asked(self) -> Consumer:
        """The client that answers questions about the topic; unlike a producer's, they never create one."""
        if self._consumer is None:
            self._consumer = self._connect()
        return self._consumer

    def _connect(self) -> Consumer:
        given = {**self._address.consumer(), "error_cb": self._remember}
        try:
            return Consumer(given, logger=CLIENT_LOGGER)
        except KafkaException as error:
            raise refused_option(error) from None

    def _remember(self, error: KafkaError) -> None:
        # That all brokers are down follows on the reason why.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._failure = error.str()

    def _ends(self, partition: int) -> tuple[int, int]:
        """Oldest position, and the one after the newest; asked again while brokers agree on who leads a partition."""
        place = TopicPartition(self._address.topic, partition)
        deadline = time.monotonic() + self._wait_seconds
        while True:
            left = max(deadline - time.monotonic(), AGAIN_SECONDS)
            try:
                with self._lock:
                    client = self._asked()
                found = client.get_watermark_offsets(place, timeout=left)
            except KafkaException as error:
                if time.monotonic() > deadline or error.args[0].code() in FORBIDDEN:
                    raise self._explained(error) from None
                time.sleep(AGAIN_SECONDS)
            else:
                if found is None:
                    raise self._explained(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
                return found

    def _reader(self, partition: int) -> PartitionReader:
        if partition not in self._readers:
            self._must_have(partition)
            with self._lock:
                if partition not in self._readers:
                    self._readers[partition] = PartitionReader(
                        self._address, partition, self._connect(), self._ends, self._wait_seconds
                    )
        return self._readers[partition]

    def _must_have(self, partition: int) -> None:
        if partition not in (there := self.partitions()):
            raise Permanent(
                f"The {self._address} has no partition {partition}, only {', '.join(map(str, there))}: it "
                "was replaced. Point RECSYS_DATA_EVENT_LOG at the topic that this lake was fed from."
            )

    def _ask_partitions(self) -> tuple[int, ...]:
        deadline = time.monotonic() + self._wait_seconds
        created = False
        while True:
            try:
                topic = self._asked().list_topics(self._address.topic, timeout=self._wait_seconds).topics
            except KafkaException as error:
                raise self._explained(error) from None
            found = topic[self._address.topic]
            if found.error is None:
                return tuple(sorted(found.partitions))
            if found.error.code() not in MISSING:
                raise self._explained(KafkaException(found.error))
            if not created:
                self._create()
                created = True
            # Brokers learn of a topic one after the other.
            if time.monotonic() > deadline:
                raise unreachable(self._address, KafkaException(found.error))
            time.sleep(AGAIN_SECONDS)

    def _create(self) -> None:
        if not self._address.create:
            raise UserError(
                f"There is no {self._address}. Create it, or append `create=true` to the options of "
                f"{SETTING.removeprefix('Setting ')}: then it gets {self._new_partitions} partitions "
                "(RECSYS_DATA_LOG_PARTITIONS)."
            )
        admin = AdminClient(self._address.admin(), logger=CLIENT_LOGGER)
        topic = NewTopic(self._address.topic, num_partitions=self._new_partitions)
        try:
            admin.create_topics([topic], request_timeout=self._wait_seconds)[self._address.topic].result()
        except KafkaException as error:
            # Another client created it at the same time.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._explained(error) from None

    def _explained(self, error: KafkaException) -> Transient | Permanent:
        code = error.args[0].code()
        if code in FORBIDDEN:
            return Permanent(f"The {self._address}: {error.args[0].str()}. Give this user access.")
        # What a client was told meanwhile, such as why a login was refused.
        with self._lock:
            self._asked().poll(0)
        with_cause = KafkaError(code, f"{error.args[0].str()} ({self._failure})") if self._failure else error.args[0]
        return unreachable(self._address, KafkaException(with_cause))
