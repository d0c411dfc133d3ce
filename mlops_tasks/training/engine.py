"""UnifiedQlibTrainingEngine: one way from a plan to a trained artefact, whatever the model family."""

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.errors import StoreError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.machine.admission import Admission
from mlops_tasks.machine.liveness import this_process
from mlops_tasks.machine.queue_state import DAILY
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.state.tables import TrainingRun, now
from mlops_tasks.state.training_runs import end_run, record_training_run
from mlops_tasks.states import RunState
from mlops_tasks.training.checks import check_start
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training.run_folder import FitRequest, RunFolder
from mlops_tasks.training.supervision import Supervisor, end_lost_runs
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingHandle:
    """A run that waits to be supervised by the process that created it."""

    run_id: str
    supervisor: Supervisor

    def supervise(self) -> Path:
        """Train until the run ends; returns the training folder. Errors as for `UnifiedQlibTrainingEngine.train`."""
        folder = self.supervisor.run()
        TrainingFolder(folder).share(self.supervisor.settings)
        log.info("run %s: trained as %s", self.run_id, folder.name)
        return folder


class UnifiedQlibTrainingEngine:
    """Trains any model of the zoo on a plan's segments and leaves one folder, complete or absent.

    The folder's name, the training key, is the digest of the numbers that the model learns from, its configuration, the
    seed, and the code and libraries that train it (`identity.py`): the same problem is never trained twice, and a
    restarted training ends in the same folder.

    Each attempt is a run with an event stream (`events.py`) that ends with exactly one of finished, failed, cancelled.
    It trains in a process of its own, can be paused, resumed and cancelled (`control.py`), and continues from the
    checkpoint that an earlier attempt at the same training left.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def train(
        self,
        plan: RunPlan,
        feature_version: str,
        model: str | TrainingConfig,
        *,
        owner: str = DAILY,
        priority: int = 0,
    ) -> Path:
        """Train one model of the plan, given by its name in the zoo or by its whole configuration.

        `owner` and `priority` say how it shares the machine with other trainings, as for `start`.

        Returns
        -------
        The training's folder (`training_folder.py`).

        Raises
        ------
        ConfigError, TrainingError
            The model is unknown, nothing can be learned from the data, or the training diverges.
        CapacityError
            It would not fit into the memory of this machine.
        TrainingCancelledError
            Somebody cancelled it.
        StageTimeoutError, StageError
            The training process ran past `training.time_limit_s`, or died.
        """
        return self.start(plan, feature_version, model, owner=owner, priority=priority).supervise()

    def start(
        self,
        plan: RunPlan,
        feature_version: str,
        model: str | TrainingConfig,
        *,
        owner: str = DAILY,
        priority: int = 0,
    ) -> TrainingHandle:
        """Check the configuration and create the run; nothing is trained before `supervise`.

        The machine is shared between owners by `training.owner_weights`; among an owner's runs a higher `priority` goes
        first, within the limits that `fair_queue.py` states.

        Runs whose processes are gone get their terminal events first.

        Raises
        ------
        ConfigError
            The model or a hyper-parameter is unknown or out of range; no run is created.
        StoreError
            The run's folder cannot be written; the run has ended as failed.
        """
        config = model if isinstance(model, TrainingConfig) else plan.config(model, self.settings)
        check_start(self.settings, plan.learning_spec(feature_version), config)
        FeatureStore(self.settings).fetch(feature_version)
        end_lost_runs(self.settings)
        request, dag_run = FitRequest(plan, feature_version, config), DagRun.of_environment()
        run_id = f"{config.model}-{now():%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        run = TrainingRun(
            run_id=run_id,
            model=config.model,
            data_version=plan.data_version,
            owner=owner,
            priority=priority,
            request={**request.to_json(), "process": this_process(), "dag_run": dag_run and dag_run.to_json()},
        )
        record_training_run(self.settings, run)
        try:
            supervisor = self._supervisor(run, request)
        except OSError as error:  # a full disk, a folder that may not be written
            end_run(self.settings, run_id, RunState.FAILED, {"error": "StoreError", "reason": str(error)})
            raise StoreError(
                f"run {run_id}: its folder cannot be written: {error}; free space, or correct its permissions"
            ) from error
        return TrainingHandle(run_id, supervisor)

    def _supervisor(self, run: TrainingRun, request: FitRequest) -> Supervisor:
        folder = RunFolder.of(self.settings, run.run_id)
        folder.write(self.settings, request)
        supervisor = Supervisor(self.settings, folder, Admission(self.settings, run.run_id, run.owner, run.priority))
        supervisor.journal.append("created", this_process())
        return supervisor
