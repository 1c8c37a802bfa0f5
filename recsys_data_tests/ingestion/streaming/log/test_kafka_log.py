"""The event log on a real Kafka broker: what its operator, other producers and failures do to it."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys_data.errors import Permanent, Transient, UserError
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.limits import ConsumerLimits
from recsys_data.ingestion.streaming.log.kafka.log import KafkaLog
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.storage.ledger import LostRange
from recsys_data_tests.support.kafka.broker import Broker, free_port
from recsys_data_tests.support.kafka.topics import FAST, Topic, make_certificates, on_kafka, topic_url
from recsys_data_tests.support.log_reading import everything, follow, lines_of
from recsys_data_tests.support.platform import Platform, view

pytestmark = pytest.mark.integration


@pytest.fixture
def url() -> str:
    return topic_url()


@pytest.fixture
def log(url: str) -> Iterator[KafkaLog]:
    log = KafkaLog(url, partitions=1)
    yield log
    log.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module alone, which its tests may kill."""
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


def test_missing_topic_is_an_error_unless_it_may_be_created():
    missing = topic_url("")
    with pytest.raises(UserError, match="There is no topic test-.*create=true.*RECSYS_DATA_LOG_PARTITIONS"):
        KafkaLog(missing).append([b"a"])
    created = KafkaLog(missing + "create=true", partitions=3)
    assert list(created.partitions()) == [0, 1, 2]
    assert list(KafkaLog(missing).partitions()) == [0, 1, 2]


def test_lines_of_a_user_come_to_one_partition_and_users_are_spread(url: str):
    log = KafkaLog(url, partitions=8)
    log.append([view(f"{user}-{event}", user_id=f"u{user}") for event in range(5) for user in range(40)])
    places: dict[str, set[int]] = {}
    for partition in log.partitions():
        for _, line in follow(log, partition, 0):
            places.setdefault(json.loads(line)["user_id"], set()).add(partition)
    assert len(places) == 40
    assert all(len(found) == 1 for found in places.values())
    assert len(set.union(*places.values())) >= 6


def test_anonymous_id_is_the_key_where_there_is_no_user(url: str):
    log = KafkaLog(url, partitions=8)
    log.append([view("1", user_id=None, anonymous_id="x1"), view("2", user_id="x1", anonymous_id="other")])
    assert sorted(log.end_offsets().values()) == [0] * 7 + [2]


def test_broker_that_is_away_is_reported_in_bounded_time():
    log = KafkaLog(f"kafka://127.0.0.1:{free_port()}/topic", wait_seconds=1)
    for use in (log.partitions, log.end_offsets, lambda: log.append([b"a"]), lambda: log.read(0, 0, 10)):
        begun = time.monotonic()
        with pytest.raises(Transient, match="topic topic of the Kafka broker 127.0.0.1:.*Look after the broker"):
            use()
        assert time.monotonic() - begun < 10


def test_broker_that_answers_nothing_is_reported_in_bounded_time(broker: Broker):
    log = KafkaLog(topic_url(broker=broker.address), partitions=1, wait_seconds=1.5)
    _in_time(log, [b"before"])
    end = log.end_offsets()[0]
    broker.pause()
    try:
        for use in (lambda: log.append([b"in doubt"]), log.end_offsets, lambda: log.read(0, end, 1000)):
            begun = time.monotonic()
            with pytest.raises(Transient, match="Look after the broker"):
                use()
            assert time.monotonic() - begun < 15
    finally:
        broker.pause(False)
    _in_time(log, [b"after"])
    assert set(_patiently(lambda: everything(log))) - {b"in doubt"} == {b"before", b"after"}


def test_nothing_is_lost_and_only_what_failed_is_doubled_while_the_broker_is_killed(broker: Broker):
    url = topic_url(broker=broker.address)
    log, reader = KafkaLog(url, partitions=2, wait_seconds=3), KafkaLog(url)
    batches = [[view(f"{batch}-{line}", user_id=f"u{line}") for line in range(50)] for batch in range(120)]
    again: set[bytes] = set()

    def append() -> None:
        for batch in batches:
            again.update(_in_time(log, batch))
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as thread:
        appending = thread.submit(append)
        read = {partition: list(follow(reader, partition, 0)) for partition in reader.partitions()}
        for _ in range(2):
            time.sleep(0.5)
            broker.kill()
            broker.start()
        appending.result()
    for partition, found in read.items():
        start = found[-1][0] + 1 if found else 0
        found += _patiently(lambda partition=partition, start=start: follow(reader, partition, start))
    counts = Counter(line for found in read.values() for _, line in found)
    assert counts.keys() == {line for batch in batches for line in batch}
    assert {line for line, count in counts.items() if count > 1} <= again
    assert read == {partition: follow(reader, partition, 0) for partition in reader.partitions()}


def test_running_consumer_takes_up_partitions_that_a_topic_gets(platform: Platform, url: str):
    log = on_kafka(platform, url)
    log.append([view(f"early-{user}", user_id=f"u{user}") for user in range(30)])
    running = consume(log, platform.open_lake(), platform.settings, Until(idle=20), ConsumerLimits(threads=1))
    accepted = 0
    while accepted < 30:
        accepted += next(running).accepted
    Topic(url).grow(12)
    deadline = time.monotonic() + 30
    producer = KafkaLog(url)
    assert len(producer.partitions()) == 12
    # Every line again, now by another partition, beside new ones.
    producer.append([view(f"{name}-{user}", user_id=f"u{user}") for user in range(30) for name in ("early", "late")])
    while len(platform.ids()) < 60 and time.monotonic() < deadline:
        next(running)
    running.close()
    platform.consume()
    assert platform.counts() == (90, 60, 30, 0)
    assert len(platform.ledger().positions) > 2


def test_records_that_retention_removed_unread_stand_in_the_ledger(platform: Platform, url: str):
    log = on_kafka(platform, url)
    log.append([view(str(number)) for number in range(10)])
    (partition,) = (partition for partition, end in log.end_offsets().items() if end)
    platform.consume()
    log.append([view(str(number)) for number in range(10, 30)])
    Topic(url).delete_before({partition: 25})
    # The log that read before has fetched ahead.
    on_kafka(platform, url)
    platform.consume()
    assert platform.ledger().lost == (LostRange(partition, 10, 25),)
    assert platform.counts() == (15, 15, 0, 0)
    faults = reconcile_lake(platform.lake, platform.settings).faults
    assert any("lost positions 10 to 25" in str(fault) for fault in faults)


def test_records_that_retention_removes_before_a_reader_comes_are_a_gap(log: KafkaLog, url: str):
    log.append([b"%d" % number for number in range(5)])
    assert lines_of(log.read(0, 0, 1)) == [b"0"]
    other = KafkaLog(url)
    Topic(url).delete_before({0: 4})
    read = other.read(0, 1, 1000)
    assert (read.start, read.positions.tolist(), read.end) == (1, [4], 5)
    Topic(url).delete_before({0: 5})
    emptied = other.read(0, 2, 1000)
    assert (emptied.start, len(emptied), emptied.end) == (2, 0, 5)
    assert (other.begin_offsets(), other.count(0, 0)) == ({0: 5}, 0)


def test_records_that_retention_removes_while_a_reader_goes_on_are_a_gap():
    url = topic_url()
    log = KafkaLog(url, partitions=1)
    for number in range(200):
        log.append([b"%d " % number + b"x" * 30_000])
    # Of 6 MB hardly more is fetched than what is read.
    slow = KafkaLog(f"{url}&queued.min.messages=1&max.partition.fetch.bytes=6000")
    start, gaps, found = 0, [], []
    while start < 200:
        if start == 2:
            Topic(url).delete_before({0: 190})
        read = slow.read(0, start, 1)
        if read.positions[0] > read.start:
            gaps.append((read.start, int(read.positions[0])))
        found += read.positions.tolist()
        start = read.end
    assert [end for _, end in gaps] == [190]
    assert found == [*range(gaps[0][0]), *range(190, 200)]
    assert gaps[0][0] < 190


def test_marks_of_transactions_are_passed_over_and_nothing_is_lost(platform: Platform, url: str):
    log = on_kafka(platform, url)
    assert log.partitions()
    topic = Topic(url)
    topic.produce_in_transaction(view("1"), view("2"))
    platform.consume()
    topic.produce_in_transaction(view("3"), commit=False)
    topic.produce_in_transaction(view("4"))
    platform.consume()
    assert platform.ids() == ["1", "2", "4"]
    assert platform.ledger().lost == ()
    assert platform.ledger().positions[0] == log.end_offsets()[0]
    assert lag_of(log, platform.lake).events == 0


def test_events_of_other_producers_are_read(platform: Platform, url: str):
    log = on_kafka(platform, url)
    assert log.partitions()
    event = {"type": "view", "user_id": "u1", "item_id": "i1", "event_ts": "2026-01-02T03:04:05Z"}
    envelope = {"specversion": "1.0", "id": "7", "source": "/shop", "time": "2026-01-02T03:04:05Z"}
    inner = {"user_id": "u1", "item_id": "i1"}
    topic, at = Topic(url), 1_767_400_000_000
    topic.produce(json.dumps(event | {"event_id": "plain"}).encode(), timestamp=at)
    topic.produce(json.dumps(event | {"event_id": "pretty"}, indent=2).encode() + b"\n", timestamp=at)
    topic.produce(json.dumps(envelope | {"type": "com.shop.view", "data": inner}).encode(), timestamp=at)
    headers = {f"ce_{name}": value for name, value in (envelope | {"id": "8", "type": "view"}).items()}
    topic.produce(json.dumps(inner).encode(), timestamp=at, headers=headers)
    topic.produce(None, b'{"event_id": "a\nb"}', b"\n", b"{\n}")
    log.append([view("ours")])
    platform.consume()
    assert platform.ids() == ["/shop#7", "/shop#8", "ours", "plain", "pretty"]
    theirs = [row for row in platform.rows() if row["event_id"] != "ours"]
    assert {row["received_at"].timestamp() * 1000 for row in theirs} == {at}
    assert {row["event_ts"].isoformat() for row in theirs} == {"2026-01-02T03:04:05+00:00"}
    assert platform.counts() == (9, 5, 0, 4)
    assert sorted(row["raw"] for row in platform.rows("dead_letters"))[:2] == [b"", b""]


def test_line_that_the_topic_does_not_take_is_permanent(log: KafkaLog):
    with pytest.raises(Permanent, match="larger than the topic takes.*message.max.bytes"):
        log.append([b"x" * 2_000_000])
    log.append([b"next"])
    assert everything(log) == [b"next"]


def test_encrypted_broker_with_logins(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    certificate, both = make_certificates(tmp_path)
    plain = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="shop" password="right-secret"'
    further = f"""
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
ssl.keystore.type=PEM
ssl.keystore.location={both}
ssl.truststore.type=PEM
ssl.truststore.location={certificate}
listener.name.sasl_ssl.plain.sasl.jaas.config={plain} user_shop="right-secret";
"""
    broker = Broker(tmp_path / "broker", protocol="SASL_SSL", further=further)
    broker.start()
    try:
        options = f"{FAST}&sasl.mechanism=PLAIN&ssl.ca.location={certificate}"
        log = KafkaLog(topic_url(options, f"shop:right-secret@{broker.address}"), wait_seconds=30)
        log.append([b"over TLS"])
        assert everything(log) == [b"over TLS"]
        log.close()
        wrong = KafkaLog(topic_url(options, f"shop:wrong-secret@{broker.address}"), wait_seconds=2)
        with pytest.raises(Transient, match="(?i)authentication") as caught:
            wrong.partitions()
        with pytest.raises(Transient) as untrusted:
            KafkaLog(
                topic_url("sasl.mechanism=PLAIN", f"shop:right-secret@{broker.address}"), wait_seconds=2
            ).partitions()
    finally:
        broker.stop()
    said = f"{caught.value} {untrusted.value} {caplog.text}"
    assert "certificate" in said
    assert "secret" not in said


def _in_time(log: KafkaLog, lines: list[bytes]) -> list[bytes]:
    """Append as clients of the collector do: again, until it succeeds; gives what was appended more than once."""
    deadline = time.monotonic() + 60
    again: list[bytes] = []
    while True:
        try:
            log.append(lines)
        except Transient:
            again = lines
            if time.monotonic() > deadline:
                raise
        else:
            return again


def _patiently(read):
    deadline = time.monotonic() + 60
    while True:
        try:
            return read()
        except Transient:
            if time.monotonic() > deadline:
                raise
