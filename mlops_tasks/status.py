"""What a team looks at in the morning: vintage, candidates, gate, deployment, scores, drift, comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_tasks.columns import SEGMENTS
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import MlopsError, StoreError
from mlops_tasks.evaluation.gate import PROVISIONAL
from mlops_tasks.evaluation.looks import Look
from mlops_tasks.experiments.delivered import said
from mlops_tasks.links import framed, report_link
from mlops_tasks.registry.approvals import standing_of
from mlops_tasks.registry.client import CHALLENGER
from mlops_tasks.registry.models import claim_of, get_alias_version
from mlops_tasks.reports import ReportKind, validation_of
from mlops_tasks.serving.reconciliation import named, reconcile
from mlops_tasks.serving.rollout_plan import describe
from mlops_tasks.state.deployments import last_step
from mlops_tasks.state.history import (
    latest_delivered_gain,
    latest_deployment,
    latest_drift_report,
    latest_gate_decision,
    latest_model_comparison,
    latest_score_batch,
    newest_alerts,
)
from mlops_tasks.state.rollouts import latest_rollout, undecided_rollouts
from mlops_tasks.states import DeploymentState
from mlops_tasks.status_table import candidates, newest_trainings, render_table, render_terms
from mlops_tasks.training.certificate import certificate_of
from mlops_tasks.training_folder import TrainingFolder

SHOWN_ALERTS = 3
ALERT_WIDTH = 240


def status_info(settings: Settings) -> dict[str, Any]:
    """Everything below `home` that says where the operation stands; absent parts are None."""
    try:
        vintage = current_vintage(settings)
    except StoreError:
        return {"vintage": None, "alerts": _alerts(settings)}
    champion, challenger = _champion(settings), _challenger(settings)
    return {
        "vintage": {
            "data_version": vintage.data_version,
            "first_date": str(vintage.first_date)[:10],
            "last_date": str(vintage.last_date)[:10],
            "rows": vintage.rows,
            "instruments": vintage.instruments,
            "quarantined": vintage.manifest["quarantined"],
        },
        "alerts": _alerts(settings),
        "candidates": candidates(settings, {"champion": _key(champion), "challenger": _key(challenger)}),
        "certificate": _certificate(settings),
        "gate": _fields(latest_gate_decision(settings), "training_key", "champion_version", "decision"),
        "champion": champion,
        "challenger": challenger,
        "deployment": _fields(latest_deployment(settings), "model_version", "strategy", "state", "reason"),
        "rollouts": _rollouts(settings),
        "delivered": _delivered(settings),
        "drift": _linked(settings, ReportKind.DRIFT, _drift(settings)),
        "comparison": _linked(settings, ReportKind.COMPARISON, _comparison(settings)),
        "validation": _validation(settings, vintage.data_version),
        "pages": {"reports": framed(settings, "reports"), "training": framed(settings, "training")},
    }


def _key(model: Mapping[str, Any] | None) -> str | None:
    return None if model is None else model.get("training_key")


def _champion(settings: Settings) -> dict[str, Any] | None:
    """The champion, once its alias is put right; None before the first deployment."""
    if last_step(settings) is None:
        return None
    try:
        found = reconcile(settings)
    except Exception as error:  # the rest of the status is still worth its reading
        return {"version": None, "said": f"not known, {type(error).__name__}: {error}"}
    standing = _standing(settings, found.champion)
    facts = _facts(settings, found.champion)
    known = {"version": found.champion, "standing": standing, "action": str(found.action), **facts}
    if found.error or found.champion is None:
        return {**known, "said": found.error or named(None)}
    served = latest_deployment(settings, found.champion, DeploymentState.SERVING)
    since = None if served is None else served.at
    calm = f"{_described(known)}, {'serving' if since is None else f'serving since {since:%Y-%m-%d %H:%M} UTC'}"
    if standing == PROVISIONAL:
        calm += ", provisional: it has proven no skill"
    return {**known, "since": None if since is None else since.isoformat(timespec="seconds"), "said": calm}


def _challenger(settings: Settings) -> dict[str, Any] | None:
    """The version that was last registered as challenger, and what the gate said of it; None before the first."""
    if not newest_trainings(settings):
        return None
    decision = latest_gate_decision(settings)
    try:
        version = get_alias_version(settings, CHALLENGER)
    except MlopsError as error:
        return {"version": None, "said": f"not known, {type(error).__name__}: {error}"}
    if version is None:
        return None
    known = {"version": version, **_facts(settings, version)}
    if decision is None or decision.training_key != known["training_key"]:
        return {**known, "verdict": None, "said": f"{_described(known)}, not judged yet"}
    verdict = f"{decision.decision['decision']} ({decision.decision['rule']})"
    return {**known, "verdict": verdict, "said": f"{_described(known)}, gate: {verdict}"}


def _facts(settings: Settings, version: int | None) -> dict[str, Any]:
    """Family, training, newest day of its data, and newest scores of a version; what is not known is None."""
    facts: dict[str, Any] = dict.fromkeys(("model", "training_key", "data_version", "last_date", "scores"))
    if version is None:
        return facts
    try:
        tags = claim_of(settings, version).tags
    except MlopsError:  # the rest of the status is still worth its reading
        return facts
    trained = TrainingFolder.of(settings, tags["training_key"]).find_manifest()
    return facts | {
        **{name: tags.get(name) for name in ("model", "training_key", "data_version")},
        "last_date": None if trained is None else trained.last_date,
        "scores": _scores(settings, version),
    }


def _described(known: Mapping[str, Any]) -> str:
    """A version, its family and the newest day of its data, in words."""
    family = f", {known['model']}" if known["model"] else ""
    data = f", of data up to {known['last_date']}" if known["last_date"] else ""
    return f"{named(known['version'])}{family}{data}"


def _standing(settings: Settings, version: int | None) -> str:
    """`champion`, or `provisional`, of a version that serves."""
    return "none" if version is None else standing_of(settings, version) or "not known"


def _scores(settings: Settings, version: int) -> dict[str, Any] | None:
    """A version's newest scores and where they lie."""
    batch = latest_score_batch(settings, model_version=version)
    if batch is None:
        return None
    path = settings.scores_dir / batch.date.isoformat() / f"{version}.parquet"
    return {"date": str(batch.date), "instruments": batch.instruments, "path": str(path)}


def _drift(settings: Settings) -> dict[str, Any] | None:
    return _fields(latest_drift_report(settings), "date", "model_version", "psi_max", "n_warn", "n_alert", "path")


def _comparison(settings: Settings) -> dict[str, Any] | None:
    row = latest_model_comparison(settings)
    found = _fields(row, "champion_version", "challenger_version", "last_date", "result")
    return None if row is None or found is None else {**found, "path": row.result["path"]}


def _linked(settings: Settings, kind: ReportKind, found: dict[str, Any] | None) -> dict[str, Any] | None:
    """A report with the address of its page."""
    return None if found is None else {**found, "page": report_link(settings, kind, Path(found["path"]).name)}


def _validation(settings: Settings, data_version: str) -> dict[str, Any] | None:
    """What the validation of a vintage said, and where its data docs are."""
    found = validation_of(settings, data_version)
    if found is None:
        return None
    return {"said": found.said, "page": report_link(settings, ReportKind.DATA_DOCS, found.name)}


def _delivered(settings: Settings) -> dict[str, Any] | None:
    row = latest_delivered_gain(settings)
    names = ("model_version", "rival_version", "since", "last_date", "promised", "delivered")
    return None if row is None else {**(_fields(row, *names) or {}), "said": said(row)}


def _rollouts(settings: Settings) -> dict[str, Any] | None:
    """Those that are under way, or else the last one; None where there was none."""
    queue = undecided_rollouts(settings)
    last = latest_rollout(settings)
    if last is None:
        return None
    return {"under_way": [describe(each) for each in queue], "said": "; ".join(map(describe, queue or [last]))}


def _fields(row: object, *names: str) -> dict[str, Any] | None:
    if row is None:
        return None
    values = {name: getattr(row, name) for name in names}
    return {k: v if isinstance(v, (int, float, dict, type(None))) else str(v) for k, v in values.items()}


def _alerts(settings: Settings) -> list[dict[str, str]]:
    return [
        {"at": row.recorded_at.isoformat(timespec="seconds"), "kind": row.kind, "message": row.message}
        for row in newest_alerts(settings, SHOWN_ALERTS)
    ]


def _certificate(settings: Settings) -> dict[str, Any] | None:
    trainings = newest_trainings(settings)
    found = certificate_of(settings, trainings[0]) if trainings else None
    if found is None:
        return None
    return {
        "key": found.key,
        "verdict": "passed" if found.passed else "failed",
        "values": found.values,
        "cuts": ", ".join(found.subject.cuts),
    }


def render_status(settings: Settings) -> str:
    """The status as text for a terminal: the state, the result table with its terms, and what to do next."""
    info = status_info(settings)
    alerts = [f"alert       {alert['at']} {alert['kind']}: {_in_short(alert['message'])}" for alert in info["alerts"]]
    if info["vintage"] is None:
        return "\n".join(["no vintage has been published yet; run `make up`, or sync_market_data in Airflow", *alerts])
    vintage, rows = info["vintage"], info["candidates"]
    lines = [
        f"vintage     {vintage['data_version']}: {vintage['rows']:,} bars of {vintage['instruments']} instruments, "
        f"{vintage['first_date']} to {vintage['last_date']}, {vintage['quarantined']} rows in quarantine",
    ]
    if rows:
        segments = rows[-1]["segments"]
        lines.append("segments    " + ", ".join(f"{name} {' to '.join(segments[name])}" for name in SEGMENTS))
    lines += [line for spec in _LINES if _is_told(info, spec[1]) for line in _line(info, *spec)]
    lines += alerts
    if rows:
        lines += ["", render_table(rows), "", render_terms(rows)]
    return "\n".join([*lines, "", *_next_steps(info)])


def _is_told(info: Mapping[str, Any], key: str) -> bool:
    """Whether there is something to say, and it is not said of the champion already."""
    if key == "challenger" and info[key] is not None:
        return bool(info[key]["version"] != (info["champion"] or {}).get("version"))
    return info[key] is not None


def _next_steps(info: Mapping[str, Any]) -> list[str]:
    """What a person does after reading this."""
    steps = [f"every report: {info['pages']['reports']}", f"trainings: {info['pages']['training']}"]
    if (info["champion"] or {}).get("version") is None:
        steps.insert(0, "no model serves: the line `gate` says why, and docs/gate.md what it asks for")
    else:
        steps.append("scores: `alphaops score`, or the champion's file above")
    if info["alerts"]:
        steps.insert(0, "alerts: docs/operations.md says what each asks for")
    return [f"{'next' if number == 0 else '':<12}{step}" for number, step in enumerate(steps)]


_LINES: Sequence[tuple[str, str, str]] = (
    ("certificate", "certificate", "{key} {verdict}: {values:,} values compared, data cut at {cuts}"),
    ("gate", "gate", "training {training_key} against {champion}: {decision}"),
    ("champion", "champion", "{said}"),
    ("challenger", "challenger", "{said}"),
    ("deployment", "deployment", "version {model_version} by {strategy}: {state}"),
    ("rollout", "rollouts", "{said}"),
    ("promised", "delivered", "{said}"),
    (
        "drift",
        "drift",
        "{n_alert} columns of version {model_version} beyond the limit on {date}, {n_warn} near it: {page}",
    ),
    (
        "comparison",
        "comparison",
        "champion {champion_version} and challenger {challenger_version} up to {last_date}: {page}",
    ),
    ("data docs", "validation", "{said}: {page}"),
)


def _in_short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ALERT_WIDTH else f"{line[:ALERT_WIDTH]} ..."


def _line(info: Mapping[str, Any], title: str, key: str, form: str) -> list[str]:
    fields = dict(info[key])
    if key == "gate":
        decision, champion = fields["decision"], fields["champion_version"]
        fields["decision"] = f"{decision['decision']} ({decision['rule']}){_look(decision)}"
        fields["champion"] = "no champion" if champion is None else f"version {champion}"
    lines = [f"{title:<12}" + form.format(**fields)]
    scores = fields.get("scores")
    if scores is not None:
        lines.append(f"{'':<12}its scores: {scores['instruments']} instruments for {scores['date']}, {scores['path']}")
    return lines


def _look(decision: Mapping[str, Any]) -> str:
    """What a decision says of the year's looks."""
    look, wait = decision.get("look"), decision.get("wait")
    if look is not None:
        return f"; {Look.from_json(look).said()}"
    return "" if wait is None else f"; next look about {wait['next_day']}, in {wait['days']} market days"
