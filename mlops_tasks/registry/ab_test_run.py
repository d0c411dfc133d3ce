"""An A/B test in MLflow: one run with its design, its looks, its state and its files, brought up to date each day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from mlflow.utils.time import get_current_time_millis

from mlops_tasks.config import Settings
from mlops_tasks.files import folder_lock
from mlops_tasks.links import report_link
from mlops_tasks.registry.client import AB_TEST_EXPERIMENT, connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.mlflow_pages import AB_TEST_TAG
from mlops_tasks.registry.runs import BATCH, FINISHED, SMALL_BATCH, batched
from mlops_tasks.reports import ReportKind

NAME_TAG, DIGEST_TAG = AB_TEST_TAG, "ab_test_digest"
PARAMETER_LENGTH = 500
"""Characters of a parameter that every version of MLflow keeps."""


@dataclass(frozen=True)
class LookNumbers:
    """What one look at one metric of one arm has found."""

    day: int
    """How many days it counts, the step in MLflow."""
    on: str
    """The last of them, as an ISO date."""
    numbers: Mapping[str, float]
    """By the names that MLflow shows."""


@dataclass(frozen=True)
class AbTestRun:
    """What MLflow stores of an experiment.

    Attributes
    ----------
    digest
        Of all of it.
    parameters
        The design, flattened; it does not change.
    tags
        How it stands: state, advice, winner.
    ended
        Whether it is over.
    files
        Artifacts of the run.
    """

    name: str
    digest: str
    hypothesis: str
    parameters: Mapping[str, str]
    looks: Sequence[LookNumbers]
    tags: Mapping[str, str]
    ended: bool
    files: Sequence[Path]


@dataclass(frozen=True)
class LoggedAbTest:
    """Where it lies in MLflow."""

    experiment_id: str
    run_id: str


@registry_errors
def log_ab_test(settings: Settings, run: AbTestRun) -> LoggedAbTest:
    """Bring the run of an experiment up to date, and make it first if there is none; equal content changes nothing.

    A look that MLflow has already is not logged again. Where restated prices or late events have changed it, the new
    value is added at the same step and is the one that MLflow shows.

    Raises
    ------
    RegistryError
        MLflow refuses, or cannot be reached.
    """
    with folder_lock(settings.home / "mlflow" / "locks" / f"ab-test-{run.name}"):
        client, experiment = connect(settings), experiment_id(settings, AB_TEST_EXPERIMENT)
        found = client.search_runs([experiment], f"tags.{NAME_TAG} = {quoted(run.name)}")
        own = found[0] if found else client.create_run(experiment, run_name=run.name, tags={NAME_TAG: run.name})
        run_id = str(own.info.run_id)
        if own.data.tags.get(DIGEST_TAG) != run.digest:
            _bring_up_to_date(client, own, settings, run)
    return LoggedAbTest(experiment, run_id)


def _bring_up_to_date(client: MlflowClient, own: Run, settings: Settings, run: AbTestRun) -> None:
    run_id = str(own.info.run_id)
    parameters = (Param(name, value[:PARAMETER_LENGTH]) for name, value in run.parameters.items())
    for params in batched(parameters, SMALL_BATCH):
        client.log_batch(run_id, params=params)
    for metrics in batched(_missing(client, own, run.looks), BATCH):
        client.log_batch(run_id, metrics=metrics)
    for file in run.files:
        client.log_artifact(run_id, str(file))
    note = f"{run.hypothesis}\n\n[report]({report_link(settings, ReportKind.AB_TEST, run.name)})"
    client.log_batch(run_id, tags=[RunTag(name, text) for name, text in {**run.tags, MLFLOW_RUN_NOTE: note}.items()])
    if run.ended and own.info.status != FINISHED:
        client.set_terminated(run_id, FINISHED)
    client.set_tag(run_id, DIGEST_TAG, run.digest)  # last: whoever is killed before begins again


def _missing(client: MlflowClient, own: Run, looks: Sequence[LookNumbers]) -> Iterator[Metric]:
    """The numbers that MLflow does not have as the newest ones of their step."""
    there: dict[str, dict[int, float]] = {}
    for look in looks:
        moment = int(datetime.fromisoformat(look.on).replace(tzinfo=UTC).timestamp() * 1000)
        for name, value in look.numbers.items():
            if name not in there:
                there[name] = _logged(client, own, name)
            known = there[name].get(look.day)
            if known is None:
                yield Metric(name, value, moment, look.day)
            elif known != value:
                yield Metric(name, value, get_current_time_millis(), look.day)


def _logged(client: MlflowClient, own: Run, name: str) -> dict[int, float]:
    """The newest value of each step; none of a run that has just been made."""
    if name not in own.data.metrics:
        return {}
    history = sorted(client.get_metric_history(own.info.run_id, name), key=lambda each: each.timestamp)
    return {each.step: each.value for each in history}
