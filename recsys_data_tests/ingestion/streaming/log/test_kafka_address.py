"""The URL of a Kafka topic: what reaches librdkafka, and what never reaches a message."""

import pytest

from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.log.kafka.address import parse_address
from recsys_data.ingestion.streaming.log.kafka.log import KafkaLog
from recsys_data.settings import Settings

TLS = "security.protocol=SASL_SSL&sasl.mechanism=PLAIN&ssl.ca.location=/etc/ca.pem&ssl.key.password=key-secret"


def test_login_and_options_reach_both_clients():
    address = parse_address(f"kafka://shop:p%40ss@one:9092,two:9093/events?{TLS}")
    assert (address.servers, address.topic) == ("one:9092,two:9093", "events")
    for given in (address.producer(5), address.consumer(), address.admin()):
        assert given["bootstrap.servers"] == "one:9092,two:9093"
        assert given["sasl.username"] == "shop"
        assert given["sasl.password"] == "p@ss"
        assert given["security.protocol"] == "SASL_SSL"
        assert given["sasl.mechanism"] == "PLAIN"
        assert given["ssl.ca.location"] == "/etc/ca.pem"
        assert given["ssl.key.password"] == "key-secret"


def test_password_is_never_sent_in_the_clear_unless_asked_for():
    assert parse_address("kafka://u:p@h:9092/t").consumer()["security.protocol"] == "SASL_SSL"
    assert parse_address("kafka://h:9092/t").consumer().get("security.protocol") is None


def test_options_of_one_client_stay_with_it():
    address = parse_address("kafka://h:9092/t?compression.type=zstd&fetch.wait.max.ms=20&create=true")
    assert address.create
    assert address.producer(5)["compression.type"] == "zstd"
    assert "fetch.wait.max.ms" not in address.producer(5)
    assert address.consumer()["fetch.wait.max.ms"] == "20"
    assert "compression.type" not in address.consumer()
    assert "create" not in address.producer(5)


def test_producer_waits_for_all_replicas_and_writes_once():
    given = parse_address("kafka://h:9092/t").producer(7)
    assert (given["acks"], given["enable.idempotence"], given["delivery.timeout.ms"]) == ("all", True, 7000)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://u:secret@h:9092",
        "kafka://u:secret@h:9092/",
        "kafka:///topic?sasl.password=secret",
        "kafka://u:secret@h:9092/a/b",
        "kafka://u:secret@h:9092/t?create=maybe",
        "kafka://u:secret@h:9092/t?acks=1",
        "kafka://u:secret@h:9092/t?ssl.key.pem=secret",
        "kafka://u:secret@h:9092/t?no.such.option=secret",
        "kafka://u:secret@h:9092/t?sasl.mechanism=secret&security.protocol=SASL_PLAINTEXT",
        "kafka://u:p@h:9092/t?ssl.ca.location=/nowhere/secret&security.protocol=SSL",
    ],
)
def test_url_that_cannot_be_used_is_refused_without_its_secrets(url: str):
    with pytest.raises(UserError, match="RECSYS_DATA_EVENT_LOG") as caught:
        KafkaLog(url)
    assert "secret" not in str(caught.value)


def test_no_password_is_shown():
    url = f"kafka://shop:p%40ss@one:9092/events?{TLS}&sasl.password=third-secret"
    settings = Settings(event_log=url)
    for shown in (repr(settings), repr(parse_address(url)), str(parse_address(url)), repr(KafkaLog("kafka://h:1/t"))):
        assert not any(secret in shown for secret in ("p%40ss", "p@ss", "key-secret", "third-secret"))
    assert {"p%40ss", "key-secret", "third-secret"} <= set(settings.secrets)
