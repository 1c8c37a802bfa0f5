"""A real Kafka broker on loopback, in KRaft mode, with a folder of its own.

Run alone, for tests by hand: `python -m recsys_data_tests.support.kafka.broker FOLDER PORT` with RECSYS_TEST_KAFKA_JARS
naming the folder of the jars that `pom.xml` lists; it ends with SIGTERM.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

JARS = "RECSYS_TEST_KAFKA_JARS"
# The id of a cluster of one; any would do.
CLUSTER = "cmVjc3lzLWRhdGEtdGVzdA"
START_SECONDS = 60.0
# Little memory and no second compiler: a test broker holds some thousand lines.
JAVA = ("java", "-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners={protocol}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocol}:{protocol}
inter.broker.listener.name={protocol}
log.dirs={data}
auto.create.topics.enable=false
message.max.bytes=5000000
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
"""


class Broker:
    """One broker process. It keeps its data and its port when it is killed and started again."""

    def __init__(self, folder: Path, port: int = 0, protocol: str = "PLAINTEXT", further: str = "") -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._output = folder / "broker.log"
        self._properties = folder / "server.properties"
        folder.mkdir(parents=True, exist_ok=True)
        ports = {"port": self.port, "controller_port": free_port()}
        self._properties.write_text(PROPERTIES.format(protocol=protocol, data=folder / "data", **ports) + further)
        self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._properties)).wait()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        self._process = self._java("kafka.Kafka", str(self._properties))
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                # A client that was refused waits longer each time.
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    pass
                if "SASL" in self._properties.read_text() or "SSL" in self._properties.read_text():
                    return
                AdminClient({"bootstrap.servers": self.address, "log_level": 0}).list_topics(timeout=2)
            except (OSError, KafkaException):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"The broker did not start: {self._output.read_text()}") from None
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def pause(self, stopped: bool = True) -> None:
        """Freeze it, or let it go on: it accepts connections and answers nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _java(self, *arguments: str) -> "subprocess.Popen[bytes]":
        if not (jars := os.environ.get(JARS)):
            pytest.fail(f"{JARS} is not set. Set it to the folder of Kafka's jars (see pom.xml), or run .ci/run.")
        with self._output.open("ab") as output:
            command = [*JAVA, QUIET, "-cp", f"{jars}/*", *arguments]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


if __name__ == "__main__":
    broker = Broker(Path(sys.argv[1]), int(sys.argv[2]))
    broker.start()
    ending = {signal.SIGTERM, signal.SIGINT}
    # Only now, because the broker would have them blocked as well.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    signal.sigwait(ending)
    broker.stop()
