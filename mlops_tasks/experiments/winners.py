"""The winners of experiments with models before the gate. What it promotes may serve; nothing is deployed here.

The gate judges each winner once, on the look that its experiment has reserved, as any other challenger. Killed at any
point and called again, it takes no second look.
"""

import logging
from dataclasses import dataclass

from mlops_tasks.config import Settings
from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.looks import Look
from mlops_tasks.experiments.lifecycle import Experiment, experiments, history_of, record_verdict
from mlops_tasks.registry.gating import ExperimentWinner, gate
from mlops_tasks.stage_results import JudgedWinner
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.looks import look_rows
from mlops_tasks.states import ExperimentState, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What the gate said of an experiment's winner."""

    experiment: str
    arm: str
    version: int
    decision: str
    rule: str
    said: str
    waits: bool = False
    """No look is to be had yet: it is judged another day."""

    @property
    def text(self) -> str:
        """For people: the gate's sentence, and what is to be done."""
        winner = f"winner of experiment {self.experiment} ({self.arm}): {self.said}"
        if self.decision != Outcome.PROMOTE:
            return winner
        return f"{winner}. It may serve, and is not deployed: alphaops deploy {self.version}, or the DAG deploy_model"

    def to_json(self) -> JudgedWinner:
        """What the task returns."""
        return {name: getattr(self, name) for name in JudgedWinner.__annotations__}  # type: ignore[return-value]


def unjudged_winners(settings: Settings) -> list[str]:
    """Names of the decided experiments whose winner is a model that the gate has not judged yet."""
    return [name for name, each in experiments(settings).items() if _why_not(each) is None and not _verdict_of(each)]


def judge_winner(settings: Settings, name: str) -> Verdict:
    """Have the gate judge the winner of a decided experiment, once; afterwards, say what it said.

    A decision that took no look, such as that of a failed check, may be made anew.

    Raises
    ------
    ExperimentError
        There is no such experiment, it has no winner but its control, or its arms are no models.
    RegistryError, DigestMismatchError, RecordMismatchError, NotApprovedError, StoreError
        As `registry.gating.gate`.
    """
    experiment = history_of(settings, name)[-1]
    if (reason := _why_not(experiment)) is not None:
        raise ExperimentError(f"experiment {name}: {reason}")
    verdict = _recorded(settings, experiment) or _judge(settings, experiment)
    log.info("%s", verdict.text)
    if verdict.waits:
        return verdict
    short = f"{verdict.decision} by rule {verdict.rule}"
    if _verdict_of(experiment) != short:
        raise_alert(settings, kind="experiment_judged", subject=name, message=verdict.text)
        record_verdict(settings, name, short, verdict.said)
    return verdict


def _verdict_of(experiment: Experiment) -> str:
    return "" if experiment.look is None else experiment.look.verdict


def _why_not(experiment: Experiment) -> str | None:
    """Why the gate has nothing to judge; None: it has."""
    design = experiment.design
    if not design.models:
        return "its arms are no models; the gate judges models only"
    if experiment.state != ExperimentState.DECIDED:
        return f"it is {experiment.state}; the gate judges the winner of a decided experiment"
    if experiment.winner in (None, design.control):
        return f"it was decided for {experiment.winner or 'no arm'}; there is no model for the gate to judge"
    if experiment.look is None:
        return "it began before experiments reserved looks of the gate's budget; register and run another one"
    return None


def _recorded(settings: Settings, experiment: Experiment) -> Verdict | None:
    """The decision on the experiment's look, if it is taken: by the champion of that day, whoever is champion now."""
    for row in look_rows(settings).decisions:
        if Look.from_json(row.decision["look"]).subject.experiment == experiment.design.name:
            outcome, rule = row.decision["decision"], row.decision["rule"]
            said = f"{outcome} by rule {rule}: {'; '.join(row.decision['reasons'])}"
            return _verdict(experiment, outcome, rule, said)
    return None


def _judge(settings: Settings, experiment: Experiment) -> Verdict:
    design = experiment.design
    result = gate(settings, _version(experiment), ExperimentWinner(design.name, len(design.arms) - 1))
    found = result.decision
    return _verdict(experiment, found.decision, found.rule, result.sentence, found.wait is not None)


def _version(experiment: Experiment) -> int:
    assert experiment.winner is not None
    return experiment.design.models[experiment.winner]


def _verdict(experiment: Experiment, decision: str, rule: str, said: str, waits: bool = False) -> Verdict:
    arm = str(experiment.winner)
    return Verdict(experiment.design.name, arm, _version(experiment), str(decision), rule, said, waits)
