"""A small but real operation in a home folder: a published vintage of planted bars, its features, registered models."""

import base64
import contextlib
import hashlib
import random
import shutil
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.tracking._tracking_service import utils

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.data.vintage_files import MANIFEST
from mlops_tasks.data.vintages import Vintage, canonical_bars, publish, write_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, digest_of_file, read_json, write_json
from mlops_tasks.registry.client import CHAMPION, artifact_root
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.models import claim_of, set_alias
from mlops_tasks.registry.runs import log_run
from mlops_tasks.secret_files import make_once as make_key
from mlops_tasks.signing import PRIVATE, SigningKey
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.tables import Deployment
from mlops_tasks.states import DeploymentState
from mlops_tasks.training.certificate import Certificate, certificate_of, certificate_path, certify, certify_model
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training_folder import TrainingFolder
from tests.made_once import once
from tests.registry.trainings import DAYS, INSTRUMENTS, SEGMENTS, Spec, make_training

KEY = SigningKey(hashlib.sha256(b"of the tests").digest())
"""Signs the trainings of every home that has no key of its own when its first model is registered."""


def bars(days: pd.DatetimeIndex = DAYS, instruments: Sequence[str] = INSTRUMENTS) -> pd.DataFrame:
    """Canonical bars; prices on a day do not depend on how many days follow."""
    frames = []
    for number, instrument in enumerate(instruments):
        generator = np.random.default_rng(number)
        close = 50 * np.exp(np.cumsum(0.02 * generator.standard_normal(len(days))))
        spread = 1 + 0.01 * generator.random(len(days))
        prices = {"open": close / spread**0.5, "high": close * spread, "low": close / spread, "close": close}
        other = {"volume": 1e5 * (1 + generator.random(len(days))), "vwap": close, "factor": 1.0}
        frames.append(pd.DataFrame({"datetime": days, "instrument": instrument, **prices, **other}))
    return canonical_bars(pd.concat(frames))


def publish_vintage(
    settings: Settings, days: pd.DatetimeIndex = DAYS, instruments: Sequence[str] = INSTRUMENTS
) -> tuple[Vintage, str]:
    """Write, publish and compute the features of a vintage; returns it and its feature version."""
    vintage = write_vintage(settings, bars(days, instruments), None, {"source": "planted bars", "quarantined": 0})
    feature_version = FeatureStore(settings).compute(vintage).feature_version
    publish(settings, vintage.data_version)
    return vintage, feature_version


OWN_ROC = "$close/Ref($close, {days})"


def define_own_set(settings: Settings, days: int = 5) -> None:
    """Write the user's own feature set `mine`: two factors, one of them over so many days, and an indicator."""
    (settings.home / "feature_sets.yaml").write_text(
        "mine:\n  version: 1\n  owner: Desk A\n  description: Mine.\n"
        f"  factors:\n    ROC5: {OWN_ROC.format(days=days)}\n    GAP: $open/Ref($close, 1)\n"
        "  indicators:\n    - {indicator: rsi, name: RSI}\n"
    )


def learning_data(settings: Settings, feature_version: str) -> tuple[pd.DataFrame, pd.Series]:
    """Stored features, and a label that follows one of them."""
    features = FeatureStore(settings).load(feature_version)
    noise = np.random.default_rng(5).standard_normal(len(features))
    signal = features["ROC5"].groupby("datetime").rank(pct=True).fillna(0.5).to_numpy() - 0.5
    return features, pd.Series(0.02 * signal + 0.01 * noise, features.index, name="label")


def certify_training(settings: Settings, spec: Spec) -> Certificate:
    """Certify what a fabricated training says that it was trained on, and its scores, as the stages do."""
    certify_model(settings, TrainingFolder.of(settings, spec.key), certify_data(settings, spec).subject)
    found = certificate_of(settings, spec.key)
    assert found is not None
    return found


def certify_data(settings: Settings, spec: Spec) -> Certificate:
    """Certify what a training says that it was trained on."""
    plan = RunPlan(
        data_version=spec.data_version,
        last_date=DAYS[-1].date(),
        feature_set=spec.feature_set,
        horizon=spec.horizon,
        models=("lightgbm", "linear"),
        segments={name: (days[0].date(), days[-1].date()) for name, days in SEGMENTS.items()},  # type: ignore[misc]
        seed=spec.seed,
        topk=5,
        n_drop=1,
    )
    return certify(settings, plan, spec.feature_version)


def register_model(settings: Settings, spec: Spec, vintage: Vintage, feature_version: str) -> int:
    """Fabricate a training on the vintage's features, log it and make it the challenger; returns the version."""
    spec = replace(spec, data_version=vintage.data_version, feature_version=feature_version)
    _place_training(settings, spec)
    return ModelLifecycleManager(settings).challenge(spec.key, _log_training(settings, spec, vintage))


def _place_training(settings: Settings, spec: Spec) -> None:
    """A fabricated training and its certificate; equal ones of homes with the tests' key are made once a run."""
    make_key(settings.secrets_dir / PRIVATE.file, lambda: base64.b64encode(KEY.raw).decode())
    if SigningKey.of(settings) != KEY:
        _fabricate(settings, spec)
        return
    training, certificates = settings.training_dir / spec.key, settings.home / "certificates"
    is_here = False

    def make(folder: Path) -> None:
        nonlocal is_here
        shutil.copy(certificate_path(settings, _fabricate(settings, spec).key), folder)
        shutil.copytree(training, folder / "training")
        is_here = True

    made = once(f"training-{digest_of(asdict(spec))}", make)
    if not is_here:
        shutil.copytree(made / "training", training)
        (certificate,) = made.glob("*.json")
        certificates.mkdir(exist_ok=True)
        if not (certificates / certificate.name).exists():
            shutil.copy(certificate, certificates)


def _fabricate(settings: Settings, spec: Spec) -> Certificate:
    make_training(settings, spec, learning_data(settings, spec.feature_version))
    return certify_training(settings, spec)


def _log_training(settings: Settings, spec: Spec, vintage: Vintage) -> str:
    """Log a training of `_place_training`; returns the run's id. Equal first runs of registries are made once a run.

    They are equal if the vintage is the same and was made of the same files, which its manifest lists.
    """
    own = settings.home / "mlflow"
    usual = artifact_root(settings) == str(own / "artifacts") and SigningKey.of(settings) == KEY
    if not usual or DagRun.of_environment() or (settings.data_dir / "quarantine").exists() or _has_runs(own / DATABASE):
        return log_run(settings, spec.key)
    is_here = False

    def make(folder: Path) -> None:
        nonlocal is_here
        run_id = log_run(settings, spec.key)
        _copy_database(own / DATABASE, folder / DATABASE)
        shutil.copytree(own / "artifacts", folder / "artifacts")
        write_json(folder / "run.json", [run_id, str(own)])
        is_here = True

    made = once(f"logged-{digest_of([asdict(spec), digest_of_file(vintage.path / MANIFEST)])}", make)
    run_id, there = read_json(made / "run.json")
    utils._artifact_repos_cache.clear()  # by the run's id, which is that of other homes, too
    if not is_here:
        own.mkdir(exist_ok=True)
        _copy_database(made / DATABASE, own / DATABASE, there, str(own))
        shutil.copytree(made / "artifacts", own / "artifacts")
        for described in own.rglob("MLmodel"):
            described.write_text(described.read_text().replace(there, str(own)))
    return str(run_id)


DATABASE = "mlflow.db"


def _has_runs(database: Path) -> bool:
    """Whether anything was ever logged there."""
    if not database.exists():
        return False
    with closing(sqlite3.connect(database)) as opened:
        return bool(opened.execute("select exists(select 1 from runs) or count(*) > 1 from experiments").fetchone()[0])


def _copy_database(source: Path, target: Path, old: str = "", new: str = "") -> None:
    """Copy a SQLite database into one that others may have opened; in its texts one word becomes another."""
    with closing(sqlite3.connect(source)) as opened, closing(sqlite3.connect(target, timeout=30)) as copy, copy:
        opened.backup(copy)
        for (table,) in copy.execute("select name from sqlite_master where type = 'table'").fetchall() if old else []:
            for _, column, kind, *_ in copy.execute(f"pragma table_info({table})").fetchall():
                if kind.startswith(("VARCHAR", "TEXT")):
                    change = f"update {table} set {column} = replace({column}, ?, ?) where instr({column}, ?)"
                    copy.execute(change, (old, new, old))


def make_champion(settings: Settings, version: int) -> None:
    """Leave what a deployment of a version leaves, without a service that proves it: its record, and the alias."""
    claim = claim_of(settings, version)
    row = Deployment(
        model_version=version,
        training_key=claim.training_key,
        artefact_digest=claim.digest,
        data_version=claim.tags["data_version"],
        strategy="blue_green",
        state=DeploymentState.SERVING,
    )
    record_deployment(settings, row)
    set_alias(settings, CHAMPION, version)
    ModelLifecycleManager(settings).show_history()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on, outside the range that outgoing connections of other processes take."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(max(1025, first - 15_000), first)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


@contextlib.contextmanager
def without_state_database(settings: Settings) -> Iterator[None]:
    """A file lies where the state database's folder was, whatever whoever looks meanwhile makes; then it comes back."""
    state, away = settings.home / "state", settings.home / "away"
    state.rename(away)
    while True:
        try:
            state.write_text("no folder")
            break
        except IsADirectoryError:
            shutil.rmtree(state, ignore_errors=True)
    try:
        yield
    finally:
        state.unlink()
        while True:
            try:
                away.rename(state)
                break
            except OSError:
                shutil.rmtree(state, ignore_errors=True)
