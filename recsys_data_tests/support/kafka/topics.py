"""Topics of a real broker, and what other clients than ours do to them."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import msgspec
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from recsys_data.ingestion.streaming.log.kafka.log import KafkaLog
from recsys_data_tests.support.platform import Platform
from recsys_data_tests.support.servers import url_of

# Reads that begin elsewhere need not wait for a broker that waits for new lines.
FAST = "create=true&fetch.wait.max.ms=20"


def topic_url(options: str = FAST, broker: str | None = None) -> str:
    """The URL of a topic that nobody else uses, of the broker that .ci/run starts unless another is given."""
    return f"kafka://{broker or url_of('RECSYS_TEST_KAFKA')}/test-{uuid4().hex}?{options}"


class Topic:
    """One topic, as an operator and other producers see it."""

    def __init__(self, url: str) -> None:
        self.broker, _, rest = url.removeprefix("kafka://").partition("/")
        self.name = rest.partition("?")[0]
        self.admin = AdminClient({"bootstrap.servers": self.broker})

    def grow(self, partitions: int) -> None:
        """Give it more partitions."""
        self.admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result()

    def delete_before(self, ends: Mapping[int, int]) -> None:
        """Delete records as retention does."""
        places = [TopicPartition(self.name, partition, end) for partition, end in ends.items()]
        for done in self.admin.delete_records(places).values():
            done.result()

    def produce(self, *values: bytes | None, partition: int = 0, **given) -> None:
        """Records of a producer that is not ours."""
        producer = Producer({"bootstrap.servers": self.broker})
        for value in values:
            producer.produce(self.name, value, partition=partition, **given)
        producer.flush()

    def produce_in_transaction(self, *values: bytes, commit: bool = True) -> None:
        """Records in one transaction, whose end takes an offset too."""
        producer = Producer({"bootstrap.servers": self.broker, "transactional.id": self.name})
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.name, value, partition=0)
        producer.flush()
        (producer.commit_transaction if commit else producer.abort_transaction)(30)


def on_kafka(platform: Platform, url: str) -> KafkaLog:
    """Let an empty platform have its log in a topic."""
    log = KafkaLog(url, partitions=platform.settings.log_partitions)
    platform.settings = msgspec.structs.replace(platform.settings, event_log=url)
    platform.log = log  # pyright: ignore[reportAttributeAccessIssue]
    platform.writers = [log]  # pyright: ignore[reportAttributeAccessIssue]
    return log


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and a file of it with its key, as brokers read them."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "broker.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return certificate, both
