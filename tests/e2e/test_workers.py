"""The daily chain on Celery workers and PostgreSQL, disturbed: each day ends as an undisturbed one.

A fault strikes while a model is trained. The suite has one day with two of them; the others, each on a day of its own,
with Redis and with RabbitMQ, are `slow`. `docs/workers.md` has the table of what happened.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import NullPool, create_engine, text

from mlops_tasks.config import PROJECT
from mlops_tasks.process import TRAINING_POOL
from mlops_tasks.stack import keeper
from mlops_tasks.stack.environment import STACK_ID
from mlops_tasks.stack.health import wait_for
from tests.brokers import BROKERS, Broker, own_broker
from tests.e2e.operation import OF_CHAIN, SMALL, Operation, lines_of_stage
from tests.postgres import OwnPostgres, own_postgres

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

QUICK = {
    "MLOPS_STACK__RETRY_DELAY_S": "5",
    # What takes a minute and a half, or two, in service.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_DETECTION_INTERVAL": "5",
    "MLOPS_CELERY__QUEUED_TIMEOUT_S": "30",
}


@dataclass
class Cluster:
    """A stack with workers, its database and its broker."""

    operation: Operation
    postgres: OwnPostgres
    broker: Broker
    beside: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Workers that are not under the stack's keeper."""
    found: list[str] = field(default_factory=list)
    """What the fault has seen of itself."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of Airflow's database."""
        engine = create_engine(self.operation.settings.postgresql_database("airflow"), poolclass=NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def tries(self) -> dict[str, tuple[str, int]]:
        """State and number of tries of each task instance of the chain."""
        rows = self.rows(f"select task_id, map_index, state, try_number from task_instance where {OF_CHAIN}")
        return {f"{task}[{index}]": (state, tries) for task, index, state, tries in rows}

    def training(self) -> Path | None:
        """The log of a training that is at work."""
        logs = self.operation.home.glob(
            "airflow/logs/dag_id=daily_retraining/*/task_id=build_model.train_model/*/*.log"
        )
        return next((log for log in logs if lines_of_stage(log) >= 3), None)

    def worker_of_training(self) -> str:
        """The service that has taken a training that runs."""
        query = f"select external_executor_id from task_instance where {OF_CHAIN} and state = 'running' and queue = "
        for (message,) in self.rows(f"{query}'{TRAINING_POOL}'"):
            for log in keeper.logs_dir(self.operation.settings).glob("worker-*.log"):
                if str(message) in log.read_text(errors="replace"):
                    return log.stem
        raise AssertionError("no worker has a training")

    def start_beside(self, prefix: list[str], **changes: str) -> None:
        """A second worker, for trainings only, under conditions of its own."""
        environ = {
            **self.operation.environ,
            "MLOPS_CELERY__WORKERS": "2",
            "MLOPS_CELERY__QUEUES": '["training"]',
            STACK_ID: keeper.read_record(self.operation.settings).stack_id,
            **changes,
        }
        command = [*prefix, sys.executable, "-m", "mlops_tasks.stack", "exec", "worker-2"]
        log = (keeper.logs_dir(self.operation.settings) / "worker-2.log").open("wb")
        self.beside.append(subprocess.Popen(command, env=environ, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT))


@contextlib.contextmanager
def cluster_on(
    kind: str, home: Path, panel: Path, changes: Mapping[str, str], address: str = "127.0.0.1"
) -> Iterator[Cluster]:
    """Database and broker run; the stack does not yet."""
    with own_postgres(address) as postgres, own_broker(kind, address) as broker:
        own = {
            "MLOPS_STACK__PROFILE": "celery",
            "MLOPS_CELERY__DATABASE_URL": f"postgresql://postgres@{address}:{postgres.port}",
            "MLOPS_STACK__HOST": address,
            "MLOPS_CELERY__BROKER_URL": broker.url,
            "MLOPS_CELERY__WORKERS": "2",
            "MLOPS_CELERY__CONCURRENCY": "3",
        }
        broker.listen(TRAINING_POOL)
        cluster = Cluster(Operation(home, panel, {**SMALL, **QUICK, **own, **changes}), postgres, broker)
        try:
            yield cluster
        finally:
            for process in cluster.beside:
                _kill(psutil.Process(process.pid))
            cluster.operation.down()


def disturb(cluster: Cluster, fault: Callable[[Cluster], None]) -> None:
    """Run the chain once, and let the fault strike while a model is trained."""
    failed: list[BaseException] = []

    def strike() -> None:
        try:
            assert wait_for(cluster.training, 900, poll_s=0.05), "no training has begun"
            fault(cluster)
        except BaseException as error:  # the test fails with it
            failed.append(error)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    cluster.operation.make("up", f"SOURCE={cluster.operation.source}", "PROFILE=celery")
    thread.join(60)
    assert not failed, failed


def ended_well(cluster: Cluster, expected: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Every task succeeded, and the state is that of an undisturbed day."""
    tries = cluster.tries()
    assert {state for state, _ in tries.values()} == {"success"}
    assert cluster.operation.state() == expected
    return tries


def _kill(process: psutil.Process) -> None:
    """With all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def worker_killed(cluster: Cluster) -> None:
    """The worker that trains a model dies with all its processes; the keeper starts it again."""
    name = cluster.worker_of_training()
    pids = {state.name: state.pid for state in keeper.service_states(cluster.operation.settings)}
    _kill(psutil.Process(pids[name]))
    cluster.found.append(name)


def message_delivered_twice(cluster: Cluster) -> None:
    """Each message of a training that runs comes a second time."""
    count = cluster.broker.deliver_again(TRAINING_POOL)
    assert count > 0
    cluster.found.append(f"{count} messages")


def broker_restarted(cluster: Cluster) -> None:
    """The broker is away for 10 s; Redis comes back empty."""
    cluster.broker.stop()
    time.sleep(10)
    cluster.broker.start()


def database_restarted(cluster: Cluster) -> None:
    """The database crashes, and is back after 10 s."""
    cluster.postgres.stop()
    time.sleep(10)
    cluster.postgres.start()


@pytest.mark.parametrize("kind", ["redis"])
def test_a_day_on_workers_ends_as_any_other(kind, panel, expected, tmp_path):
    """Each training's message comes twice, then the worker that trains is killed: no task fails for good, and files,
    registry and history equal those of the chain without Airflow on SQLite.

    A stack and a run of the whole chain, with a worker that has to be missed: over a minute on any machine.
    """

    def both(cluster: Cluster) -> None:
        message_delivered_twice(cluster)
        worker_killed(cluster)

    with cluster_on(kind, tmp_path / "home", panel, {}) as cluster:
        disturb(cluster, both)
        tries = ended_well(cluster, expected)
        assert max(count for _, count in tries.values()) >= 2, "nobody died"
        logs = keeper.logs_dir(cluster.operation.settings).glob("worker-*.log")
        assert any("ignoring redelivered message" in log.read_text(errors="replace") for log in logs)
        held = psutil.Process(_pid_of(cluster, "worker-1")).environ()
        assert not {name for name in held if "FERNET" in name or "JWT_SECRET" in name or name.endswith("ALCHEMY_CONN")}


def _pid_of(cluster: Cluster, service: str) -> int:
    return next(s.pid for s in keeper.service_states(cluster.operation.settings) if s.name == service)


FAULTS: dict[str, tuple[Callable[[Cluster], None], dict[str, str]]] = {
    "worker killed": (worker_killed, {}),
    "message delivered twice": (message_delivered_twice, {}),
    "broker restarted": (broker_restarted, {}),
    "database restarted": (database_restarted, {}),
    "task longer than the visibility timeout": (
        lambda cluster: None,
        {"MLOPS_CELERY__VISIBILITY_TIMEOUT_S": "1"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_leaves_the_day_as_it_is(kind, fault, panel, expected, tmp_path):
    """One fault, one day."""
    strike, changes = FAULTS[fault]
    with cluster_on(kind, tmp_path / "home", panel, changes) as cluster:
        disturb(cluster, strike)
        tries = ended_well(cluster, expected)
        again = sorted(task for task, (_, count) in tries.items() if count > 1)
        print(f"FAULT {fault} | {kind} | {cluster.found} | tried again: {again}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKERS)
def test_a_worker_whose_clock_is_an_hour_off(kind, panel, expected, tmp_path):
    """It takes the trainings; nothing that it makes depends on its clock."""
    faketime = shutil.which("faketime") or pytest.skip("no faketime: apt-get install faketime")
    with cluster_on(kind, tmp_path / "home", panel, OUTSIDE) as cluster:
        cluster.operation.make("up", f"SOURCE={panel}", "CHAIN=0")
        cluster.start_beside([faketime, "-f", "+1h"])
        disturb(cluster, lambda cluster: cluster.found.append(cluster.worker_of_training()))
        ended_well(cluster, expected)
        assert cluster.found == ["worker-2"]


OUTSIDE = {"MLOPS_CELERY__WORKERS": "1", "MLOPS_CELERY__QUEUES": '["light", "heavy", "evaluation"]'}
"""Of the stack's own worker, so that one beside it has the trainings."""


@dataclass(frozen=True)
class OtherHost:
    """A network namespace with one link to this one."""

    name: str
    address: str

    @property
    def prefix(self) -> list[str]:
        """What a command there begins with."""
        return ["ip", "netns", "exec", self.name]

    def link(self, state: str) -> None:
        """`up` or `down`."""
        subprocess.run(["ip", "link", "set", self.name, state], check=True)


@contextlib.contextmanager
def other_host() -> Iterator[OtherHost]:
    """Made for a test, and gone after it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and iproute2")
    host = OtherHost(f"mlops{os.getpid() % 10_000}", f"10.231.{os.getpid() % 200}.1")
    there = f"{host.address.rpartition('.')[0]}.2"
    for command in (
        f"ip netns add {host.name}",
        f"ip link add {host.name} type veth peer name inner netns {host.name}",
        f"ip addr add {host.address}/24 dev {host.name}",
        f"ip link set {host.name} up",
        f"ip -n {host.name} addr add {there}/24 dev inner",
        f"ip -n {host.name} link set inner up",
        f"ip -n {host.name} link set lo up",
    ):
        subprocess.run(command.split(), check=True)
    try:
        yield host
    finally:
        subprocess.run(["ip", "netns", "delete", host.name], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKERS)
def test_a_worker_whose_network_is_cut(kind, panel, expected, tmp_path):
    """In the middle of a training, for 45 s: from database, broker, API server and MLflow at once."""
    with other_host() as host, cluster_on(kind, tmp_path / "home", panel, OUTSIDE, host.address) as cluster:
        cluster.operation.make("up", f"SOURCE={panel}", "CHAIN=0")
        cluster.start_beside(host.prefix)

        def cut(cluster: Cluster) -> None:
            cluster.found.append(cluster.worker_of_training())
            host.link("down")
            time.sleep(45)
            host.link("up")

        disturb(cluster, cut)
        tries = ended_well(cluster, expected)
        assert cluster.found == ["worker-2"]
        print(f"FAULT network cut | {kind} | tried again: {sorted(t for t, (_, n) in tries.items() if n > 1)}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKERS)
def test_a_worker_with_a_full_disk_takes_nothing(kind, panel, expected, tmp_path):
    """It says so, and the other one does the work; once there is space, it takes tasks again."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(disk)], check=True)
    try:
        (disk / "filled").write_bytes(bytes(300 * 2**20))
        with cluster_on(kind, tmp_path / "home", panel, {"MLOPS_CELERY__WORKERS": "1"}) as cluster:
            cluster.operation.make("up", f"SOURCE={panel}", "CHAIN=0")
            cluster.start_beside([], TMPDIR=str(disk))
            log = keeper.logs_dir(cluster.operation.settings) / "worker-2.log"
            assert wait_for(lambda: "takes no tasks" in log.read_text(errors="replace"), 300)
            cluster.operation.up()
            ended_well(cluster, expected)
            assert "Executing workload" not in log.read_text(errors="replace")
            (disk / "filled").unlink()
            assert wait_for(lambda: "takes tasks again" in log.read_text(errors="replace"), 60)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
