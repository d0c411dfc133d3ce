"""What a team looks at in the morning: vintage, candidates, gate, deployment, scores, drift, comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.evaluation.gate import PROVISIONAL
from mlops_tasks.evaluation.looks import Look
from mlops_tasks.experiments.delivered import said
from mlops_tasks.files import read_json
from mlops_tasks.registry.approvals import standing_of
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.tasks import LATEST_CANDIDATES
from mlops_tasks.serving.reconciliation import named, reconcile
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
from mlops_tasks.training.certificate import certificate_of

COLUMNS = {
    "model": "model",
    "test_ic_mean": "IC",
    "test_icir": "ICIR",
    "test_rank_ic_mean": "rank IC",
    "test_rank_icir": "rank ICIR",
    "test_excess_return_after_cost": "excess return p.a. (sum)",
    "test_information_ratio": "IR",
    "test_max_drawdown": "max drawdown (sum)",
    "train_seconds": "training s",
}
"""Metric to heading of the result table; all on the test segment."""

SEGMENTS = ("train", "valid", "test")
SHOWN_ALERTS = 3
ALERT_WIDTH = 240
PERCENT = {"test_excess_return_after_cost", "test_max_drawdown"}


def status_info(settings: Settings) -> dict[str, Any]:
    """Everything below `home` that says where the operation stands; absent parts are None."""
    try:
        vintage = current_vintage(settings)
    except StoreError:
        return {"vintage": None, "alerts": _alerts(settings)}
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
        "candidates": _candidates(settings),
        "certificate": _certificate(settings),
        "gate": _fields(latest_gate_decision(settings), "training_key", "champion_version", "decision"),
        "champion": _champion(settings),
        "deployment": _fields(latest_deployment(settings), "model_version", "strategy", "state", "reason"),
        "scores": _scores(settings),
        "delivered": _delivered(settings),
        "drift": _fields(latest_drift_report(settings), "date", "psi_max", "n_warn", "n_alert"),
        "comparison": _fields(
            latest_model_comparison(settings), "champion_version", "challenger_version", "last_date", "result"
        ),
    }


def _champion(settings: Settings) -> dict[str, Any] | None:
    """The champion, once its alias is put right; None before the first deployment."""
    if last_step(settings) is None:
        return None
    try:
        found = reconcile(settings)
    except Exception as error:  # the rest of the status is still worth its reading
        return {"version": None, "said": f"not known, {type(error).__name__}: {error}"}
    standing = _standing(settings, found.champion)
    calm = f"{named(found.champion)} ({found.action})"
    if standing == PROVISIONAL:
        calm += ", provisional: it has proven no skill"
    return {"version": found.champion, "standing": standing, "said": found.error or calm}


def _standing(settings: Settings, version: int | None) -> str:
    """`champion`, or `provisional`, of a version that serves."""
    return "none" if version is None else standing_of(settings, version) or "not known"


def _scores(settings: Settings) -> dict[str, Any] | None:
    batch = latest_score_batch(settings)
    found = _fields(batch, "date", "model_version", "instruments")
    if batch is None or found is None:
        return None
    serves = batch.alias == CHAMPION
    return {**found, "standing": _standing(settings, batch.model_version) if serves else batch.alias}


def _delivered(settings: Settings) -> dict[str, Any] | None:
    row = latest_delivered_gain(settings)
    names = ("model_version", "rival_version", "since", "last_date", "promised", "delivered")
    return None if row is None else {**(_fields(row, *names) or {}), "said": said(row)}


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


def _newest_trainings(settings: Settings) -> list[str]:
    pointer = settings.home / LATEST_CANDIDATES
    return list(read_json(pointer)["training_keys"]) if pointer.is_file() else []


def _certificate(settings: Settings) -> dict[str, Any] | None:
    trainings = _newest_trainings(settings)
    found = certificate_of(settings, trainings[0]) if trainings else None
    if found is None:
        return None
    return {
        "key": found.key,
        "verdict": "passed" if found.passed else "failed",
        "values": found.values,
        "cuts": ", ".join(found.subject.cuts),
    }


def _candidates(settings: Settings) -> list[dict[str, Any]]:
    rows = []
    for key in _newest_trainings(settings):
        folder = settings.training_folder(key)
        metrics = {
            **read_json(folder / "metrics.json"),
            **read_json(folder / "evaluation" / "evaluation.json")["metrics"],
        }
        lineage = read_json(folder / "plan.json")
        rows.append({"model": lineage["model"], "training_key": key, "segments": lineage["segments"], **metrics})
    return rows


def render_status(settings: Settings) -> str:
    """The status as text for a terminal."""
    info = status_info(settings)
    alerts = [f"alert       {alert['at']} {alert['kind']}: {_in_short(alert['message'])}" for alert in info["alerts"]]
    if info["vintage"] is None:
        return "\n".join(["no vintage has been published yet; run `make up`, or sync_market_data in Airflow", *alerts])
    vintage = info["vintage"]
    lines = [
        f"vintage     {vintage['data_version']}: {vintage['rows']:,} bars of {vintage['instruments']} instruments, "
        f"{vintage['first_date']} to {vintage['last_date']}, {vintage['quarantined']} rows in quarantine",
    ]
    if info["candidates"]:
        segments = info["candidates"][0]["segments"]
        lines.append("segments    " + ", ".join(f"{name} {' to '.join(segments[name])}" for name in SEGMENTS))
    lines += [_line(info, *spec) for spec in _LINES if info[spec[1]] is not None]
    lines += alerts
    if info["candidates"]:
        lines += ["", render_table(info["candidates"])]
    return "\n".join(lines)


_LINES: Sequence[tuple[str, str, str]] = (
    ("certificate", "certificate", "{key} {verdict}: {values:,} values compared, data cut at {cuts}"),
    ("gate", "gate", "training {training_key} against {champion}: {decision}"),
    ("champion", "champion", "{said}"),
    ("deployment", "deployment", "version {model_version} by {strategy}: {state}"),
    ("scores", "scores", "{instruments} instruments for {date} by version {model_version} ({standing})"),
    ("promised", "delivered", "{said}"),
    ("drift", "drift", "{n_alert} columns beyond the limit, {n_warn} near it"),
    ("comparison", "comparison", "champion {champion_version} and challenger {challenger_version} up to {last_date}"),
)


def _in_short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ALERT_WIDTH else f"{line[:ALERT_WIDTH]} ..."


def _line(info: Mapping[str, Any], title: str, key: str, form: str) -> str:
    fields = dict(info[key])
    if key == "gate":
        decision, champion = fields["decision"], fields["champion_version"]
        fields["decision"] = f"{decision['decision']} ({decision['rule']}){_look(decision)}"
        fields["champion"] = "no champion" if champion is None else f"version {champion}"
    return f"{title:<12}" + form.format(**fields)


def _look(decision: Mapping[str, Any]) -> str:
    """What a decision says of the year's looks."""
    look, wait = decision.get("look"), decision.get("wait")
    if look is not None:
        return f"; {Look.from_json(look).said()}"
    return "" if wait is None else f"; next look about {wait['next_day']}, in {wait['days']} market days"


def render_table(candidates: Sequence[Mapping[str, Any]]) -> str:
    """The candidates' metrics on the test segment, as a Markdown table that is aligned for a terminal too."""
    rows = [list(COLUMNS.values())] + [[_cell(name, row.get(name)) for name in COLUMNS] for row in candidates]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if name in PERCENT:
        return f"{value:.1%}"
    return f"{value:.1f}" if name == "train_seconds" else f"{value:.4f}"
