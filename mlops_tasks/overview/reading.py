"""Reads the parts of the overview from the state database and from files."""

from datetime import date, datetime, timedelta
from pathlib import PurePosixPath

from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import last_closed_session
from mlops_tasks.data.revisions.approvals import find_approval
from mlops_tasks.data.vintages import Vintage, current_version, current_vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.evaluation.gate import PROVISIONAL
from mlops_tasks.overview.parts import (
    Bars,
    Champion,
    Drift,
    Gate,
    OpenAlert,
    Overview,
    Part,
    Scores,
    Waiting,
    Work,
)
from mlops_tasks.state.alerts.episodes import Episode
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.alerts.signals import read_signals
from mlops_tasks.state.approvals import standing_approval
from mlops_tasks.state.deployments import deployed_as
from mlops_tasks.state.experiments import newest
from mlops_tasks.state.history import (
    latest_drift_report,
    latest_gate_decision,
    latest_publication,
    latest_score_batch,
)
from mlops_tasks.state.model_history import tenures, version_trained_as
from mlops_tasks.state.model_index import find_version
from mlops_tasks.state.rollouts import Rollout, undecided_rollouts
from mlops_tasks.state.tables import ExperimentStep, TrainingRun, now
from mlops_tasks.state.training_runs import open_training_runs
from mlops_tasks.states import Basis, ExperimentState, Outcome

SYNC_TAKES = timedelta(hours=1)
"""How long after its beginning a sync has surely brought the bars."""
SHOWN = 20
"""Number of trainings under way that are named, the newest ones."""
BLOCKED = "vintage_blocked"
"""Kind of alert of a vintage that the policy blocks."""


def overview(settings: Settings) -> Overview:
    """How the operation stands now.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    moment = now()
    vintage, unreadable = _vintage(settings)
    champion = _champion(settings)
    alerts = open_episodes(settings)
    steps = list(newest(settings)[1].values())
    return Overview(
        at=moment,
        bars=None if vintage is None else _bars(settings, vintage, moment),
        scores=None if champion is None else _scores(settings, champion.version),
        champion=champion,
        gate=_gate(settings),
        drift=None if champion is None else _drift(settings, champion.version),
        alerts=[_alert(each) for each in alerts],
        work=_work(settings, steps),
        waiting=[*_blocked(settings, vintage, alerts), *_undecided(steps)],
        unreadable=unreadable,
    )


def _vintage(settings: Settings) -> tuple[Vintage | None, str]:
    try:
        return (None if current_version(settings) is None else current_vintage(settings)), ""
    except StoreError as error:
        return None, str(error)


def _bars(settings: Settings, vintage: Vintage, moment: datetime) -> Bars:
    published = latest_publication(settings)
    recorded = published is not None and published.data_version == vintage.data_version
    return Bars(
        data_version=vintage.data_version,
        source=PurePosixPath(vintage.manifest["source"]).name,
        first_date=date.fromisoformat(vintage.first_date),
        last_date=date.fromisoformat(vintage.last_date),
        rows=vintage.rows,
        instruments=vintage.instruments,
        quarantined=vintage.manifest["quarantined"],
        in_use_since=published.at if published is not None and recorded else None,
        due=_due(settings, moment),
    )


def _due(settings: Settings, moment: datetime) -> date | None:
    """The newest session whose bars should be there, if scores were ever computed soon after their day."""
    if not read_signals(settings, ["scores"], moment)["scores"]:
        return None
    calendar = settings.calendar
    return last_closed_session(calendar.schedule, moment, timedelta(minutes=calendar.delay_min) + SYNC_TAKES)


def _scores(settings: Settings, version: int) -> Scores | None:
    batch = latest_score_batch(settings, model_version=version)
    return None if batch is None else Scores(batch.date, version, batch.instruments, batch.recorded_at)


def _champion(settings: Settings) -> Champion | None:
    reigns = tenures(settings)
    if not reigns or reigns[-1].until is not None:
        return None
    last = reigns[-1]
    earlier = [each.version for each in reigns if each.version != last.version]
    return Champion(
        version=last.version,
        family=_family(settings, last.version),
        since=last.since,
        is_provisional=_is_provisional(settings, last.version),
        previous=earlier[-1] if earlier else None,
    )


def _family(settings: Settings, version: int) -> str:
    try:
        return find_version(settings, version).family
    except StoreError:
        return ""


def _is_provisional(settings: Settings, version: int) -> bool:
    """Whether the gate lets it serve without proof, and no person has approved it since."""
    record = deployed_as(settings, version)
    approval = None if record is None else standing_approval(settings, record.training_key, record.digest)
    return approval is not None and (approval.basis, approval.approved_by) == (Basis.GATE, PROVISIONAL)


def _gate(settings: Settings) -> Gate | None:
    row = latest_gate_decision(settings)
    if row is None:
        return None
    decision, wait = row.decision, row.decision.get("wait")
    return Gate(
        training_key=row.training_key,
        version=version_trained_as(settings, row.training_key),
        family=row.model_name,
        champion=row.champion_version,
        decision=Outcome(decision["decision"]),
        rule=decision["rule"],
        reasons=tuple(decision["reasons"]),
        next_look="" if wait is None else f"in {wait['days']} market days, about {wait['next_day']}",
        at=row.recorded_at,
    )


def _drift(settings: Settings, version: int) -> Drift | None:
    row = latest_drift_report(settings, version)
    if row is None:
        return None
    name = PurePosixPath(row.path).name
    return Drift(row.date, row.model_version, row.n_alert, row.n_warn, row.at_stake, name, row.recorded_at)


def _alert(episode: Episode) -> OpenAlert:
    kind, subject = episode.key
    opened = episode.opened or episode.noticed
    return OpenAlert(kind, subject, episode.severity, episode.message, opened, episode.acknowledged_by)


def _work(settings: Settings, steps: list[ExperimentStep]) -> list[Work]:
    running = [each for each in steps if each.state in (ExperimentState.RUNNING, ExperimentState.PAUSED)]
    return [
        *map(_rollout, undecided_rollouts(settings)),
        *map(_experiment, running),
        *map(_training, open_training_runs(settings)[-SHOWN:]),
    ]


def _training(run: TrainingRun) -> Work:
    return Work("training", run.run_id, f"{run.model} of {run.owner} trains", run.at)


def _rollout(rollout: Rollout) -> Work:
    steps = len(rollout.plan.shares)
    at = f", step {min(rollout.step + 1, steps)} of {steps}" if rollout.is_at_work else ""
    said = f"{rollout.strategy.value} of version {rollout.version}: {rollout.state.value}{at}"
    return Work("rollout", str(rollout.version), said, rollout.began_at or rollout.asked_at)


def _experiment(step: ExperimentStep) -> Work:
    return Work("experiment", step.experiment, f"experiment {step.experiment} is {step.state}", step.at)


def _blocked(settings: Settings, in_use: Vintage | None, alerts: list[Episode]) -> list[Waiting]:
    """Vintages that a person may approve, as long as the one that they were compared with is in use."""
    old = None if in_use is None else in_use.data_version
    found = []
    for each in alerts:
        version = each.key.subject
        if each.key.kind != BLOCKED or old in (None, version) or find_approval(settings, str(old), version):
            continue
        said = f"vintage {version} changes history more than the policy allows: approve it, or correct the source"
        found.append(Waiting(Part.DATA, version, said, each.opened or each.noticed))
    return found


def _undecided(steps: list[ExperimentStep]) -> list[Waiting]:
    stopped = [each for each in steps if each.state == ExperimentState.STOPPED]
    return [
        Waiting(Part.EXPERIMENTS, each.experiment, f"experiment {each.experiment} has stopped: decide it", each.at)
        for each in stopped
    ]
