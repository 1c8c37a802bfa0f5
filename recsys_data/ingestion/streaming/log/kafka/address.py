"""The URL of a Kafka topic, and the client configuration that it stands for.

`kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT ...]/TOPIC[?OPTION=VALUE&...]`: options are the properties of librdkafka
by their own names (`security.protocol`, `sasl.mechanism`, `ssl.ca.location`, `compression.type`, ...), and `create`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from recsys_data.errors import UserError

SETTING = "Setting RECSYS_DATA_EVENT_LOG"
FORM = "kafka://HOST:9092/TOPIC"
# What the log's promises rest on.
DECIDED = {
    "acks": "all",
    "auto.offset.reset": "error",
    "bootstrap.servers": "",
    "enable.auto.commit": "false",
    "enable.idempotence": "true",
    "enable.partition.eof": "true",
    "partitioner": "murmur2_random",
}
OF_PRODUCERS = ("batch.", "compression.", "delivery.", "linger.", "message.timeout.", "queue.buffering.", "retries")
OF_CONSUMERS = ("check.crcs", "fetch.", "group.", "isolation.", "max.partition.", "queued.")
Configuration = dict[str, str | int | float | bool]
# A change of the topic's partitions is known to every client so soon.
METADATA_SECONDS = 10


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where a topic is.

    Attributes:
        servers: `HOST:PORT`, separated by commas.
        topic: its name.
        create: whether a topic that is missing is created.
        options: properties of librdkafka; secrets are among them.
    """

    servers: str
    topic: str
    create: bool
    options: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        return f"topic {self.topic} of the Kafka broker {self.servers}"

    def producer(self, seconds: float) -> Configuration:
        """Configuration of a producer whose messages are written within so many seconds, or fail."""
        own = {"compression.type": "lz4", "delivery.timeout.ms": round(seconds * 1000)}
        given = {name: value for name, value in self.options.items() if not name.startswith(OF_CONSUMERS)}
        # Java's producers choose the partition of a key in the same way.
        fixed = {"acks": "all", "enable.idempotence": True, "partitioner": DECIDED["partitioner"]}
        return self._common() | own | given | fixed

    def consumer(self) -> Configuration:
        """Configuration of a consumer that is told where to read, and reports the end of what is there."""
        own = {"group.id": "recsys-data", "check.crcs": True, "queued.max.messages.kbytes": 16 * 1024}
        given = {name: value for name, value in self.options.items() if not name.startswith(OF_PRODUCERS)}
        fixed = {"enable.auto.commit": False, "enable.auto.offset.store": False, "enable.partition.eof": True}
        return self._common() | own | given | fixed | {"auto.offset.reset": "error"}

    def admin(self) -> Configuration:
        """Configuration of a client that creates the topic."""
        others = (*OF_PRODUCERS, *OF_CONSUMERS)
        return self._common() | {name: value for name, value in self.options.items() if not name.startswith(others)}

    def _common(self) -> Configuration:
        return {
            "bootstrap.servers": self.servers,
            "topic.metadata.refresh.interval.ms": METADATA_SECONDS * 1000,
            # What it would log several times a second while a broker is away, our errors say too.
            "log_level": 2,
            # A broker that is back must not be waited for longer than that.
            "reconnect.backoff.max.ms": 1000,
        }


def parse_address(url: str) -> KafkaAddress:
    """Read a URL.

    Raises:
        UserError: it is not one of a Kafka topic; the message shows no part that may be secret.
    """
    parts = urlsplit(url)
    login, _, servers = parts.netloc.rpartition("@")
    topic = parts.path.strip("/")
    if not servers or not topic or "/" in topic or parts.fragment:
        raise UserError(
            f"{SETTING} begins with `kafka:` but does not name brokers and one topic. Expected {FORM}; write "
            "characters such as / ? # @ of a password percent-encoded."
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    create = options.pop("create", "false").lower()
    if create not in ("true", "false"):
        raise UserError(f"{SETTING} has an option `create` that is neither `true` nor `false`.")
    for name in options:
        if name in DECIDED or name.endswith(".pem"):
            advice = "Name a file with ssl.key.location." if name.endswith(".pem") else "Leave it out."
            raise UserError(f"{SETTING} has the option {name!r}, which cannot be set. {advice}")
    return KafkaAddress(servers, topic, create == "true", _login(login) | options)


def _login(login: str) -> dict[str, str]:
    if not login:
        return {}
    user, _, password = login.partition(":")
    # A password never travels in the clear unless that is asked for by `security.protocol=SASL_PLAINTEXT`.
    secure = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}
    return secure | {"sasl.username": unquote(user), "sasl.password": unquote(password)}
