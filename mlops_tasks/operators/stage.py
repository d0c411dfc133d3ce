"""The operator that runs one stage of the library in a process of its own."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context

from mlops_tasks.errors import ConfigError, StageCancelledError, excerpt, hint
from mlops_tasks.operators.links import links_of
from mlops_tasks.process import RUN_NOTE, STAGE_SPAN, run_stage
from mlops_tasks.stage_process import StageProcess, end_group

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage


class StageOperator(BaseOperator):
    """Run `python -m mlops_tasks run <stage>`, stream its log, return its result.

    Each record of the child's log is one of the task's, under its own name and level. The child's whole process group
    ends when the task does: at the time limit, when somebody marks the task failed or clears it (`on_kill`), and when
    the task's process is killed outright (the child's leash). Each key of the result is an XCom of its own, so that
    `operator.output["key"]` works.

    Parameters
    ----------
    stage
        A key of `mlops_tasks.process.STAGES`.
    arguments
        Keyword arguments of the stage, plain JSON and results of earlier tasks. Their texts are not templates: what
        people typed, or a database holds, would be executed.
    run_params
        Names of DAG params that are passed as arguments of the same names.
    triggered_by
        Name of the argument that receives the user who triggered the run; empty if nobody did.
    triggered_at
        Name of the argument that receives the time as of which the run was triggered (ISO, with its zone): the same
        whenever the task is tried or cleared.
    time_limit_s
        Seconds after which the stage is killed and the task fails.
    subject
        What this one of several mapped tasks is about, for `map_index_template`: a text, or an earlier result.

    Raises
    ------
    ConfigError
        The run was triggered with a key that the form does not have (Airflow accepts it silently).
    StageError
        The stage ran too long, was cancelled, or ended with an error. Its kind says what follows (`ErrorPolicy`).
    """

    template_fields: Sequence[str] = ("arguments", "subject")
    template_fields_renderers: dict[str, str] = {"arguments": "json"}  # noqa: RUF012  Airflow's own declaration
    ui_color = "#e8f0f8"

    def __init__(  # noqa: PLR0913  what a DAG file says of a task
        self,
        *,
        stage: str,
        arguments: Mapping[str, Any] | None = None,
        run_params: Sequence[str] = (),
        triggered_by: str | None = None,
        triggered_at: str | None = None,
        time_limit_s: float = 1800,
        subject: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=True, **kwargs)
        self.stage = stage
        self.arguments = dict(arguments or {})
        self.run_params = tuple(run_params)
        self.triggered_by = triggered_by
        self.triggered_at = triggered_at
        self.time_limit_s = time_limit_s
        self.subject = subject
        self.operator_extra_links = links_of(stage)
        self.given: dict[str, Any] = {}
        """All arguments of the stage, once it has begun."""
        self.made: dict[str, Any] = {}
        """Its result, once it is done."""
        self._child: StageProcess | None = None

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Resolve results of earlier tasks, however deeply nested; leave each text as it is.

        Airflow itself would execute the texts that a mapped task is given, even those that are results.
        """
        return content if isinstance(content, str) else super().render_template(content, context, *args, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stage and return its result as the task's XCom."""
        self.check_form(context)
        return self.run(context, {})

    def check_form(self, context: Context) -> None:
        """Refuse what the run was triggered with, if the form does not have it; first of all."""
        if self.run_params:
            check_conf(context["dag_run"].conf or {}, context["dag"].params)

    def run(self, context: Context, more: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stage with further arguments besides those of the DAG file."""
        given = {name: context["params"][name] for name in self.run_params}
        if self.triggered_by is not None:
            given[self.triggered_by] = getattr(context["dag_run"], "triggering_user_name", None) or ""
        if self.triggered_at is not None:
            given[self.triggered_at] = context["dag_run"].run_after.isoformat()
        self.given = {**self.arguments, **given, **more}
        started = time.time()
        try:
            self.made = run_stage(self.stage, self.given, time_limit_s=self.time_limit_s, on_start=self._remember)
        except Exception as error:
            told = f"cancelled: {error}" if isinstance(error, StageCancelledError) else str(error)
            context["ti"].xcom_push(RUN_NOTE, f"{self.task_id}: {told}")
            raise
        context["ti"].xcom_push(STAGE_SPAN, [started, time.time()])
        return self.made

    @property
    def known(self) -> dict[str, Any]:
        """Arguments and, once the stage is done, its result: the links are derived from it."""
        return {**self.given, **self.made}

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> "OperatorLineage":
        """What the stage read and made, for an OpenLineage service; Airflow's provider calls it, where one is named."""
        from mlops_tasks.operators.emitted_lineage import emitted_lineage  # needs packages that no other task does

        return emitted_lineage(self.given, self.made)

    def on_kill(self) -> None:
        """End the stage's process group."""
        if self._child is not None:
            end_group(self._child)

    def _remember(self, child: StageProcess) -> None:
        self._child = child


def check_conf(conf: Mapping[str, Any], params: Collection[str]) -> None:
    """Refuse a run whose configuration has keys that are not params of its DAG: they would be ignored.

    Raises
    ------
    ConfigError
        Names the keys and what they may have been meant for.
    """
    unknown = sorted(set(conf) - set(params))
    if unknown:
        told = "; ".join(f"{excerpt(name)}: {hint(name, params)}" for name in unknown)
        raise ConfigError(f"the run's configuration has unknown keys: {told}; trigger it with the form's keys")
