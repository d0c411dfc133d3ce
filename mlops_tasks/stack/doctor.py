"""Checks of the machine and the running stack, each with a remedy."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from mlops_tasks.config import PROJECT, SYNTHETIC, PostgresqlSource, Settings, SourceSpec, TableSource
from mlops_tasks.data.exchanges.calendars import AUTO, check_calendar
from mlops_tasks.data.vintages import current_version, load_vintage
from mlops_tasks.errors import ConfigError, StackError, StoreError, excerpt, hint
from mlops_tasks.features.sets import check_feature_sets, feature_set_names
from mlops_tasks.modeling.model_zoo.zoo import OWN_FILE, read_zoo
from mlops_tasks.private import is_foreign, mode_of, open_to_others
from mlops_tasks.stack import keeper, ports
from mlops_tasks.stack.airflow_api import AirflowApi
from mlops_tasks.stack.credentials import ADMIN, read_credentials
from mlops_tasks.stack.environment import airflow_url
from mlops_tasks.stack.health import unhealthy

LEAST_DISK_BYTES = 5 * 2**30
LEAST_MEMORY_BYTES = 3 * 2**30


@dataclass(frozen=True)
class Finding:
    """The result of one check; `remedy` is empty if all is well."""

    name: str
    state: Literal["ok", "warning", "error"]
    detail: str
    remedy: str = ""

    def info(self) -> dict[str, Any]:
        """The finding as plain JSON."""
        return asdict(self)


def check(settings: Settings) -> list[Finding]:
    """Check everything; changes nothing."""
    return [
        _python(),
        _lightgbm(),
        _memory(),
        _disk(settings.home),
        _user(),
        _home(settings.home),
        _vintage(settings),
        _clock(settings.home),
        _source(settings),
        _feature_sets(settings),
        _models(settings),
        _calendars(settings),
        _alert_rules(settings),
        *_ports(settings),
        *_services(settings),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Finding("python", "ok", version)
    return Finding("python", "error", version, "create the environment with Python 3.11: make env PYTHON=python3.11")


def _lightgbm() -> Finding:
    """Check in a separate process: the library is native, and a broken one may crash its process."""
    command = [sys.executable, "-c", "import lightgbm; print(lightgbm.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding("lightgbm", "ok", done.stdout.strip())
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    remedy = "install the OpenMP library: apt-get install libgomp1" if "libgomp" in reason else "make env"
    return Finding("lightgbm", "error", reason, remedy)


def _memory() -> Finding:
    available = psutil.virtual_memory().available
    detail = f"{available / 2**30:.1f} GiB available"
    if available >= LEAST_MEMORY_BYTES:
        return Finding("memory", "ok", detail)
    return Finding(
        "memory", "warning", detail, "the services need 1.3 GiB, a training 2 GiB or more: end other programs"
    )


def _disk(home: Path) -> Finding:
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.1f} GiB free below {home}"
    if free >= LEAST_DISK_BYTES:
        return Finding("disk", "ok", detail)
    return Finding(
        "disk", "error", detail, f"free {LEAST_DISK_BYTES / 2**30:.0f} GiB, or move MLOPS_HOME to a larger disk"
    )


def _user() -> Finding:
    if os.geteuid() != 0:
        return Finding("user", "ok", f"uid {os.geteuid()}")
    remedy = "make down; chown -R <user> this folder and MLOPS_HOME; make up as that user"
    return Finding("user", "warning", "root: anybody who breaks into a service controls the machine", remedy)


def _home(home: Path) -> Finding:
    """Whether other users of the machine can reach anything below the home."""
    if is_foreign(home):
        return Finding("home", "error", f"{home} belongs to somebody else", f"chown -R <user> {home}")
    found = open_to_others(home)
    if not found:
        return Finding("home", "ok", f"{home} is accessible only to its owner")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    detail = f"{found[0]} (mode {mode_of(found[0]):04o}){more}: open to other users of this machine"
    return Finding("home", "error", detail, f"make up closes it; at once: chmod -R go= {home}")


def _vintage(settings: Settings) -> Finding:
    """Whether the data in use equal what was written."""
    try:
        version = current_version(settings)
    except StoreError as error:
        return Finding("data", "error", str(error), "correct shared.store and what it needs (docs/shared_stores.md)")
    if version is None:
        return Finding("data", "ok", "no vintage is in use yet")
    try:
        load_vintage(settings, version).files.verify()
    except StoreError as error:
        return Finding("data", "error", str(error), f"alphaops checkout {version}")
    return Finding("data", "ok", f"vintage {version} is what was written")


def _clock(home: Path) -> Finding:
    """If the clock was set back, Airflow's tokens are not yet valid, and its schedule repeats days."""
    now = datetime.now(UTC).timestamp()
    ahead = [path for path in (home, *home.glob("*/*")) if path.exists() and path.stat().st_mtime > now + 60]
    if not ahead:
        return Finding("clock", "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return Finding(
        "clock",
        "error",
        f"{ahead[0]} is newer than now",
        "set the clock (timedatectl set-ntp true), then make down, make up",
    )


def _source(settings: Settings) -> Finding:
    source = settings.data.source
    if source in settings.data.sources:
        return _named_source(source, settings.data.sources[source])
    if source == SYNTHETIC or Path(source).exists():
        return Finding("source", "ok", source)
    return Finding(
        "source",
        "error",
        f"there is no {source}",
        "make up SOURCE=<parquet or CSV file, or a folder of them, or a name of data.sources>",
    )


def _named_source(name: str, spec: SourceSpec) -> Finding:
    if isinstance(spec, PostgresqlSource) and not os.environ.get(spec.dsn_variable):
        return Finding("source", "error", f"{name}: {spec.dsn_variable} is not set", f"export {spec.dsn_variable}=...")
    if isinstance(spec, TableSource) and not Path(spec.path).expanduser().exists():
        return Finding("source", "error", f"{name}: there is no {spec.path}", "correct data.sources in settings.yaml")
    return Finding("source", "ok", f"{name} ({spec.kind})")


def _feature_sets(settings: Settings) -> Finding:
    """An invalid set affects no other; only the one that the chain computes must be valid."""
    name, known, wrong = settings.features.feature_set, feature_set_names(settings), check_feature_sets(settings)
    if name not in known:
        wrong[name] = f"features.feature_set: there is no set {name}"
    if not wrong:
        return Finding("feature sets", "ok", f"{name}; {len(known)} are defined")
    detail = "; ".join(error.splitlines()[0] for error in wrong.values())
    remedy = "correct feature_sets.yaml, or choose another features.feature_set"
    return Finding("feature sets", "error" if name in wrong else "warning", detail, remedy)


def _models(settings: Settings) -> Finding:
    """An invalid entry affects no other; only those that the chain trains must be valid."""
    try:
        zoo = read_zoo(settings)
    except ConfigError as error:
        return Finding("models", "error", str(error), f"correct {settings.home / OWN_FILE}")
    missing = [name for name in settings.training.models if name not in zoo.entries]
    wrong = {name: zoo.errors.get(name, f"training.models: {_unknown(name, zoo.entries)}") for name in missing}
    others = {**zoo.errors, **zoo.clashes}
    if not wrong and not others:
        return Finding("models", "ok", f"{', '.join(settings.training.models)}; {len(zoo.entries)} are defined")
    detail = "; ".join({**others, **wrong}.values())
    remedy = f"correct {settings.home / OWN_FILE}, or choose other training.models"
    return Finding("models", "error" if wrong else "warning", detail, remedy)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"there is no model {excerpt(name)}; {hint(name, known)}"


def _calendars(settings: Settings) -> Finding:
    """Whether exchange_calendars knows the calendars that the settings name."""
    named = {"calendar.name": settings.calendar.name, "calendar.schedule": settings.calendar.schedule}
    for key, name in named.items():
        if (key, name) != ("calendar.name", AUTO):
            try:
                check_calendar(name)
            except ConfigError:
                remedy = f"set {key} to XNYS, XSHG, 24/7 or another name of exchange_calendars"
                return Finding("calendars", "error", f"{key}: there is no calendar {excerpt(name)}", remedy)
    return Finding("calendars", "ok", ", ".join(f"{key} {name}" for key, name in named.items()))


def _alert_rules(settings: Settings) -> Finding:
    """Whether the alert rules can be read, and whether anybody is notified."""
    from mlops_tasks.state.alerts.rules import configured_sinks, read_rules

    try:
        rules = read_rules(settings)
    except ConfigError as error:
        return Finding("alert rules", "error", str(error), "docs/alerts.md explains each key")
    sinks = configured_sinks(settings)
    said = f"{len(rules)} rules, reported by {', '.join(sinks) or 'only the log and `alphaops status`'}"
    return Finding("alert rules", "ok", said)


def _ports(settings: Settings) -> Iterator[Finding]:
    taken = {item.port: item for item in ports.taken_ports(settings.stack, keeper.own_pids(settings))}
    for field, variable in ports.PORT_VARIABLES.items():
        port: int = getattr(settings.stack, field)
        if port in taken:
            yield Finding(
                field, "error", f"{port}: {taken[port].reason}", f"choose another port: {variable}=<port> make up"
            )
        else:
            yield Finding(field, "ok", f"{port}")


def _services(settings: Settings) -> Iterator[Finding]:
    states = keeper.service_states(settings)
    if not states:
        yield Finding("services", "warning", "not running", "make up")
        return
    try:
        made = read_credentials(settings)
        wrong = unhealthy(settings, made)
    except StackError as error:
        yield Finding("services", "error", str(error), "make down, then make up")
        return
    for state in states:
        log = keeper.logs_dir(settings) / f"{state.name}.log"
        if state.name in wrong:
            yield Finding(
                state.name, "error", f"{state.state}: {wrong[state.name]}", f"read {log}; make up restarts it"
            )
        else:
            yield Finding(state.name, "ok", f"{state.state} for {state.since_s:.0f} s")
    if not wrong:
        yield from dag_findings(settings, AirflowApi(airflow_url(settings), ADMIN, made.airflow_password))


def dag_findings(settings: Settings, api: AirflowApi) -> Iterator[Finding]:
    """Whether Airflow runs the current version of every DAG file."""
    try:
        known, broken = api.dags(), api.import_errors()
    except StackError as error:
        yield Finding("DAGs", "error", str(error), "make down, then make up")
        return
    for reason in broken:
        yield Finding("DAG file", "error", reason, "correct the file, or the file of MLOPS_HOME that it names")
    for dag_id in sorted(path.stem for path in (PROJECT / "dags").glob("*.py")):
        yield _dag(dag_id, known.get(dag_id), f"read {keeper.logs_dir(settings) / 'airflow-dag-processor.log'}")


def _dag(dag_id: str, found: Mapping[str, Any] | None, read_log: str) -> Finding:
    """One DAG as Airflow's API describes it; None: it was never parsed."""
    name = f"DAG {dag_id}"
    if found is None:
        return Finding(name, "error", "Airflow does not know it", f"wait a minute after make up, then {read_log}")
    seen = f"last parsed at {found['last_parsed_time']}"
    if found["is_stale"]:
        detail = f"stale: it does not run, and triggers answer 404; {seen}"
        return Finding(name, "error", detail, f"{read_log}; the next successful parse brings it back")
    if found["has_import_errors"]:
        return Finding(name, "error", f"its file does not import, so its last good version runs; {seen}", read_log)
    if found["is_paused"]:
        return Finding(name, "warning", f"paused: it does not run automatically; {seen}", "unpause it in Airflow")
    return Finding(name, "ok", seen)
