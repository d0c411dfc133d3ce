"""The operator that deploys, and asks a person first where the run's form says so."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import TaskAwaitingInput
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.process import RUN_NOTE
from mlops_tasks.states import Approval, Outcome

APPROVE, REJECT = "Approve", "Reject"


class DeploymentOperator(StageOperator):
    """Run the stage `serving.deploy`, once a person has approved it where the DAG param `approval` asks for that.

    While it waits it is in Airflow's state `awaiting_input`: it takes no worker, no pool slot and no triggerer. Airflow
    lists it under *Required actions*; whoever may edit HITL details answers. This is what the standard provider's
    `ApprovalOperator` does; as part of the deployment's own task it costs nothing where nobody is asked. If it is
    rejected, or nobody answers in time, the champion stays as it is, the task succeeds with that result, and the run's
    note says so. A task that is cleared, or retried after an error, asks again.

    Parameters
    ----------
    wait
        How long to wait for an answer.
    given
        As for `StageOperator`. Nobody is asked where the argument `gate` does not promote.
    """

    def __init__(self, *, wait: timedelta, **given: Any) -> None:
        super().__init__(stage="serving.deploy", **given)
        self.wait = wait

    def execute(self, context: Context) -> dict[str, Any]:
        """Deploy, or ask."""
        self.check_form(context)  # nobody is asked about a run that cannot be
        if not self._is_to_ask(context):
            return self.run(context, {})
        version = self._version(context)
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[APPROVE, REJECT],
            defaults=[REJECT],
            subject=f"Deploy version {version}?",
            body=f"By the strategy {self._strategy(context)}. {self._reasons()} Without an answer within {self.wait} "
            "it is not deployed, and the champion stays in service.",
            params={},  # without it Airflow's own API refuses the question
        )
        raise TaskAwaitingInput(method_name="execute_complete", timeout=self.wait)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Deploy or not, according to the answer; Airflow calls this."""
        user = event.get("responded_by_user") or {}
        who = user.get("name") or user.get("id") or ""
        if event.get("chosen_options") == [APPROVE] and who:
            return self.run(context, {"approved_by": who})
        reason = f"{who} has rejected it" if who else f"nobody has approved it within {self.wait}"
        version = self._version(context)
        self.log.info("not deployed: %s", reason)
        context["ti"].xcom_push(RUN_NOTE, f"version {version} is not deployed: {reason}")
        return {"deployed": False, "version": version, "reason": reason}

    def _is_to_ask(self, context: Context) -> bool:
        gate = self.arguments.get("gate")
        meant = context["params"].get("version") is not None if gate is None else gate["decision"] == Outcome.PROMOTE
        return meant and context["params"].get("approval") == Approval.BEFORE_DEPLOY

    def _version(self, context: Context) -> int:
        gate = self.arguments.get("gate")
        return int(context["params"]["version"] if gate is None else gate["version"])

    def _strategy(self, context: Context) -> str:
        return str(self.arguments.get("strategy") or context["params"].get("strategy"))

    def _reasons(self) -> str:
        gate = self.arguments.get("gate")
        return "" if gate is None else f"The gate promotes it by rule {gate['rule']}: {'; '.join(gate['reasons'])}."
