"""A replay from its beginning to its record: `replay` is what the command line and the DAG call."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.snapshots import checkout_vintage
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import MlopsError, RegistryError, StoreError
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.model_zoo.memory import BASE_MB, PLAIN_BASE_MB
from mlops_tasks.registry.client import connect, registry_errors
from mlops_tasks.registry.models import get_run_id, get_tags
from mlops_tasks.registry.replay.environment import check_environment, environment_differences
from mlops_tasks.registry.replay.record import RecordedTraining, definition_of, read_record
from mlops_tasks.registry.replay.refused import ReplayRefusedError
from mlops_tasks.registry.replay.report import Compared, EnvironmentDifference, ReplayReport
from mlops_tasks.registry.replay.request import ReplayRequest
from mlops_tasks.registry.replay.scratch import Scratch, scratch_folder
from mlops_tasks.registry.replay.turns import Pace, TimeIsUpError, Turns
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.replays import record_replay
from mlops_tasks.state.tables import ModelReplay
from mlops_tasks.states import ReplayRefusal, ReplayVerdict
from mlops_tasks.training.checks import check_start
from mlops_tasks.training.memory_need import panel_need

log = logging.getLogger(__name__)

STAGE = "mlops_tasks.registry.replay.work:replay_stage"
FOLDER = "replays"
"""Folder among the artifacts of a version's run; a report each."""
LONGEST_TAG = 64
"""Characters that are kept of what a version's tags claim; none of ours is longer."""
TAG = "replay"
"""Tag of the run: the newest replay's verdict, and when it ended."""


@dataclass(frozen=True)
class ReplayOrder:
    """Which version to replay, and how."""

    version: int
    by: str
    """Who asks for it; kept."""
    pace: Pace
    anyway: bool = False
    """Go on where the environment is another one."""


def replay(settings: Settings, order: ReplayOrder) -> ReplayReport:
    """Train a registered version again from its record, compare, and keep what was found.

    It is kept in the state database (`state/replays.py`) and logged to the version's MLflow run. A refusal or a replay
    whose time was up is a report too. Differences, and refusals because something was lost or changed, raise the alert
    `replay_different` or `replay_impossible`.

    Raises
    ------
    RegistryError
        There is no such version, or MLflow does not answer.
    CapacityError, StageError
        It does not fit into this machine, or its process died or failed: nothing is kept.
    """
    began, started = datetime.now(UTC), time.monotonic()
    with scratch_folder(settings) as scratch:
        found = _Attempt(settings, order, scratch).run()
    report = replace(found, began=began.isoformat(timespec="seconds"), seconds=round(time.monotonic() - started, 3))
    _keep(settings, report)
    return report


class _Attempt:
    """One replay in its scratch folder; knows what has become clear of the version so far."""

    def __init__(self, settings: Settings, order: ReplayOrder, scratch: Scratch) -> None:
        self.settings, self.order, self.scratch = settings, order, scratch
        self.tags = get_tags(settings, order.version)
        self.environment: tuple[EnvironmentDifference, ...] = ()

    def run(self) -> ReplayReport:
        """Find out, whatever comes of it."""
        try:
            measured = self._measured()
        except ReplayRefusedError as error:
            return self._report(ReplayVerdict.REFUSED, refusal=error.refusal, why=str(error))
        except TimeIsUpError as error:
            return self._report(ReplayVerdict.UNFINISHED, why=str(error))
        parts = tuple(Compared.from_json(each) for each in measured["parts"])
        if not measured["verdict"]:
            said = (
                f"version {self.order.version}: the rebuilt features are equal, but the recorded configuration does "
                "not give its training key; bring the training's folder back from a backup"
            )
            return self._report(ReplayVerdict.REFUSED, refusal=ReplayRefusal.RECORD_DAMAGED, why=said, parts=parts)
        return self._report(ReplayVerdict(measured["verdict"]), parts=parts)

    def _measured(self) -> dict[str, Any]:
        settings, order = self.settings, self.order
        record = read_record(settings, order.version, self.scratch.artefact)
        definition = definition_of(settings, record)
        self.environment = environment_differences(settings, record, definition)
        if not order.anyway:
            check_environment(record, self.environment)
        vintage = _checked_out(settings, record)
        with suppress(StoreError):  # they may be gone; the replay's own process cannot reach the shared store
            FeatureStore(settings).fetch(record.plan.feature_version)
        request = self._request(record, definition)
        try:
            spec = LearningSpec(vintage.data_version, request.feature_version, request.horizon, request.days)
            check_start(settings, spec, record.config)
        except MlopsError as error:
            raise ReplayRefusedError(ReplayRefusal.NOT_ALLOWED, f"version {order.version}: {error}") from error
        request.write(self.scratch.request)
        self.scratch.link(vintage)
        need = panel_need(vintage, vintage.rows, len(definition.names), record.config)
        need = replace(need, base_mb=BASE_MB.get(record.config.family, PLAIN_BASE_MB))
        turns = Turns(settings, f"replay-v{order.version}", need, order.pace)
        return turns.run(STAGE, {"folder": str(self.scratch.path)})

    def _request(self, record: RecordedTraining, definition: FeatureSet) -> ReplayRequest:
        return ReplayRequest(
            training_key=record.training_key,
            data_version=record.plan.data_version,
            feature_version=record.plan.feature_version,
            definition=definition.to_json(),
            horizon=record.plan.horizon,
            segments=record.plan.segments,
            configuration=record.configuration,
            model_config=record.plan.model_config,
            threads=record.identity.get("threads"),
            files=record.manifest.get("files", {}),
            same_environment=not self.environment,
            tolerance=self.settings.replay.tolerance,
        )

    def _report(
        self,
        verdict: ReplayVerdict,
        *,
        refusal: ReplayRefusal | None = None,
        why: str = "",
        parts: tuple[Compared, ...] = (),
    ) -> ReplayReport:
        names = ("training_key", "model", "data_version")
        return ReplayReport(
            version=self.order.version,
            **{name: self.tags.get(name, "")[:LONGEST_TAG] for name in names},
            verdict=verdict,
            by=self.order.by,
            began="",
            seconds=0.0,
            refusal=refusal,
            why=why,
            parts=parts,
            environment=self.environment,
            anyway=self.order.anyway,
        )


def _checked_out(settings: Settings, record: RecordedTraining) -> Vintage:
    """The vintage that it was trained on, restored from DVC where it is not on disk."""
    try:
        return checkout_vintage(settings, record.plan.data_version)
    except StoreError as error:
        raise ReplayRefusedError(
            ReplayRefusal.VINTAGE_GONE,
            f"version {record.version}: the bars that it was trained on are gone: {error} as it was then, or bring "
            f"data/.dvc/cache and data/vintages/{record.plan.data_version}.dvc back from a backup",
        ) from error


def _keep(settings: Settings, report: ReplayReport) -> None:
    row = ModelReplay(
        model_version=report.version,
        training_key=report.training_key,
        verdict=report.verdict,
        reason=report.reason,
        report=report.to_json(),
        by=report.by,
    )
    record_replay(settings, row)
    if report.refusal is not ReplayRefusal.RUN_DELETED:
        try:
            _log(settings, report)
        except RegistryError as error:  # the record is kept; MLflow only shows it
            log.warning("MLflow does not show this replay: %s", error)
    if report.is_alarming:
        kind = "replay_impossible" if report.verdict is ReplayVerdict.REFUSED else "replay_different"
        raise_alert(settings, kind=kind, subject=f"version {report.version}", message=_alert(report))


def _alert(report: ReplayReport) -> str:
    if report.verdict is ReplayVerdict.REFUSED:
        return f"it cannot be replayed: {report.why}"
    return (
        f"its replay is not what it was: {report.reason}; alphaops replay {report.version} repeats it, docs/replay.md "
        "says how to read it"
    )


@registry_errors
def _log(settings: Settings, report: ReplayReport) -> None:
    """Log a report to its version's run."""
    client, run_id = connect(settings), get_run_id(settings, report.version)
    client.log_dict(run_id, report.to_json(), f"{FOLDER}/{report.began.replace(':', '')}.json")
    client.set_tag(run_id, TAG, f"{report.verdict} {report.began}")
