"""Brokers of a test's own, which it stops and starts: Redis and RabbitMQ."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from kombu import Connection, Exchange, Queue

from tests.operation import free_ports

_START_S = 180.0
_RABBITMQ = Path("/usr/lib/rabbitmq/bin")


class Broker(Protocol):
    """What faults need of either."""

    @property
    def url(self) -> str:
        """The address for Celery."""

    def start(self) -> None:
        """Return once it answers."""

    def stop(self) -> None:
        """End it; what it holds in memory is lost."""

    def listen(self, queue: str) -> None:
        """Before the first message: have a way to deliver those of the queue again."""

    def deliver_again(self, queue: str) -> int:
        """Deliver the messages of the queue that were there a second time; how many."""


@dataclass
class Redis:
    """A server that keeps nothing on disk."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server") or pytest.skip("no redis-server: apt-get install redis-server")
        options = ["--port", str(self.port), "--bind", self.address, "--save", "", "--appendonly", "no"]
        options += ["--protected-mode", "no", "--dir", str(self.folder)]
        self.process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        _wait(self.url)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def listen(self, queue: str) -> None:
        """Nothing to do: Redis keeps what workers hold where everybody can read it."""

    def deliver_again(self, queue: str) -> int:
        import redis

        client: Any = redis.Redis(self.address, self.port)
        held = [json.loads(each) for each in client.hvals("unacked")]
        again = [message for message, _, key in held if key == queue]
        for message in again:
            client.lpush(queue, json.dumps(message))
        return len(again)


@dataclass
class RabbitMQ:
    """A node of its own."""

    folder: Path
    address: str = "127.0.0.1"
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self.address}:{self.ports[0]}//"

    @property
    def _environ(self) -> dict[str, str]:
        own = {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"alphaops{self.ports[0]}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": self.address,
            "RABBITMQ_NODE_PORT": str(self.ports[0]),
            "RABBITMQ_DIST_PORT": str(self.ports[1]),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "db"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
        }
        (self.folder / "rabbitmq.conf").write_text("loopback_users = none\n")
        return {**os.environ, **own}

    def start(self) -> None:
        program = _RABBITMQ / "rabbitmq-server"
        if not program.exists():
            pytest.skip("no RabbitMQ: apt-get install rabbitmq-server")
        self.process = subprocess.Popen(
            [program], env=self._environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _wait(self.url)

    def stop(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def listen(self, queue: str) -> None:
        """RabbitMQ's trace has a copy of each message that a worker is given."""
        command = [_RABBITMQ / "rabbitmqctl", "-n", self._environ["RABBITMQ_NODENAME"], "trace_on"]
        subprocess.run(command, env=self._environ, capture_output=True, check=True)
        with Connection(self.url) as connection:
            _copies(queue)(connection.channel()).declare()

    def deliver_again(self, queue: str) -> int:
        found = []
        with Connection(self.url) as connection:
            copies, producer = _copies(queue)(connection.channel()), connection.Producer()
            while (message := copies.get(no_ack=True)) is not None:
                found.append(message)
            for message in found:
                properties = message.headers["properties"]
                names = ("headers", "content_type", "content_encoding", "correlation_id", "reply_to", "delivery_mode")
                kept = {name: properties[name] for name in names if name in properties}
                producer.publish(message.body, routing_key=queue, **kept)
        return len(found)


def _copies(queue: str) -> Queue:
    trace = Exchange("amq.rabbitmq.trace", type="topic", durable=True)
    return Queue(f"copies of {queue}", trace, routing_key=f"deliver.{queue}")


BROKERS = {"redis": Redis, "rabbitmq": RabbitMQ}


@contextmanager
def own_broker(kind: str, address: str = "127.0.0.1") -> Iterator[Broker]:
    """One that runs, with nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"alphaops_{kind}_"))
    broker = BROKERS[kind](folder, address)
    try:
        broker.start()
        yield broker
    finally:
        if broker.process is not None:
            broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with Connection(url, connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=0)
            return
        except Exception:  # of the transport
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
