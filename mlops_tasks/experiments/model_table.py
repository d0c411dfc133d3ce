"""The table of models: every family trained with several seeds on the vintage in use, measured on the same test days.

One training runs at a time, each in a process of its own. Finished trainings are reused, so an interrupted table
continues where it stopped. Nothing is registered: no model of the table becomes a challenger.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import ConfigError, MlopsError
from mlops_tasks.evaluation.report import is_current
from mlops_tasks.evaluation.seed_noise import configuration_key, seed_band, seed_difference
from mlops_tasks.experiments.peers import PEERS, Peer, all_metrics
from mlops_tasks.experiments.table_columns import COLUMNS, table_cells
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, finite_or_none, write_json, write_text
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.plots.figure import shown, write_png
from mlops_tasks.plots.model_table import ModelTableInfo, SeedPoints, plot_model_table
from mlops_tasks.process import run_stage
from mlops_tasks.registry.model_table_run import ModelTableRun, log_model_table
from mlops_tasks.registry.runs import log_run
from mlops_tasks.registry.training_record import finite
from mlops_tasks.state.history import record_seed_noise
from mlops_tasks.state.tables import SeedNoise
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.plan import RunPlan, make_plan
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)

CONFIDENCE = 0.95

TABLE, MARKDOWN, PLOT = "table.json", "table.md", "table.png"


PLOTTED = ("test_rank_ic_mean", "test_excess_return_after_cost")


@dataclass(frozen=True)
class TableRequest:
    """What a table should contain; seeds are consecutive, starting with the settings' seed."""

    models: tuple[str, ...]
    seeds: int = 3
    peers: bool = False
    """Whether Qlib's own classes are trained too, for the models that it has."""


@dataclass(frozen=True)
class Row:
    """One model, or Qlib's own class of that model, over its seeds."""

    model: str
    is_peer: bool = False
    results: dict[int, dict[str, float]] = field(default_factory=dict)
    """Seed to metrics; metrics that are undefined are left out."""
    training_keys: dict[int, str] = field(default_factory=dict)
    run_ids: dict[int, str] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The row's name in the table."""
        return f"qlib {self.model}" if self.is_peer else self.model

    def values(self, metric: str) -> list[float]:
        """A metric's value of each seed that has one."""
        return [found[metric] for _, found in sorted(self.results.items()) if metric in found]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        bands = {column.metric: band_json(self.values(column.metric)) for column in COLUMNS}
        return {
            "name": self.name,
            "model": self.model,
            "is_peer": self.is_peer,
            "metrics": {metric: band for metric, band in bands.items() if band is not None},
            "seeds": {
                str(seed): {"metrics": metrics, "training_key": self.training_keys.get(seed)}
                for seed, metrics in self.results.items()
            },
            "failures": {str(seed): reason for seed, reason in self.failures.items()},
        }


def make_model_table(settings: Settings, request: TableRequest, say: Callable[[str], None] = log.info) -> Path:
    """Train and evaluate every model of a request with every seed, and write the table.

    Parameters
    ----------
    say
        Called with a line when each training begins and ends.

    Returns
    -------
    The folder `<home>/reports/model_table/<data_version>-<digest>/`: table.json, table.md and table.png. They are also
    logged to MLflow, as a run whose children are the trainings' runs. A model that cannot be trained has no numbers;
    the reason is below the table.

    Raises
    ------
    ConfigError, TrainingError, StoreError
        The request names an unknown model, or there is no vintage that it can be trained on.
    """
    if request.seeds < 1:
        raise ConfigError(f"seeds: {request.seeds} trainings a model make no table; ask for 1 or more, or 3 for a band")
    vintage = current_vintage(settings)
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": list(request.models)})
    feature_version = FeatureStore(settings).compute(vintage, plan.feature_set).feature_version
    rows = [Row(model) for model in plan.models]
    rows += [Row(model, is_peer=True) for model in plan.models if request.peers and model in PEERS]
    seeds = [plan.seed + number for number in range(request.seeds)]
    jobs = [(row, plan.model_copy(update={"seed": seed})) for seed in seeds for row in rows]
    for number, (row, own_plan) in enumerate(jobs, start=1):
        say(f"{number} of {len(jobs)}: {row.name}, seed {own_plan.seed}")
        try:
            _fill(settings, row, own_plan, feature_version)
        except MlopsError as error:
            row.failures[own_plan.seed] = f"{type(error).__name__}: {error}"
            say(f"  failed: {error}")
        else:
            say("  " + ", ".join(f"{title} {text}" for title, text in _texts(row.results[own_plan.seed])))
    identity = {"plan": plan.model_dump(mode="json"), "seeds": seeds, "peers": request.peers}
    name = f"{vintage.data_version}-{digest_of(identity, length=8)}"
    content = {
        "table": name,
        "feature_version": feature_version,
        **identity,
        "confidence": CONFIDENCE,
        "rows": [row.to_json() for row in rows],
        "differences": list(differences(rows)),
    }
    folder = settings.reports_dir / "model_table" / name
    write_table(folder, content)
    for row in rows:
        if not row.is_peer and len(row.results) > 1:
            _record_seed_noise(settings, row, vintage.data_version)
    table = ModelTableRun(
        name=name,
        digest=digest_of(content),
        data_version=vintage.data_version,
        metrics=_band_metrics(rows),
        files=[folder / each for each in (TABLE, MARKDOWN, PLOT)],
        trainings=[run_id for row in rows for run_id in row.run_ids.values()],
    )
    log_model_table(settings, table)
    return folder


def _band_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Mean and standard deviation over the seeds of each row's metrics, by the names that MLflow shows."""
    bands = {f"{row.name}.{column.metric}": band_json(row.values(column.metric)) for row in rows for column in COLUMNS}
    shorts = {"mean": "mean", "sd": "standard_deviation"}
    numbers = {f"{name}.{short}": band[long] for name, band in bands.items() if band for short, long in shorts.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def band_json(values: Sequence[float]) -> dict[str, Any] | None:
    """The seed band of a metric as plain JSON; None without values."""
    if not values:
        return None
    band = seed_band(values, CONFIDENCE)
    names = ("mean", "standard_deviation", "lower", "upper")
    return {"n": band.n, "values": list(values), **{name: finite_or_none(getattr(band, name)) for name in names}}


def differences(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Our model minus Qlib's own class, metric by metric, with the interval that seed noise explains."""
    ours = {row.model: row for row in rows if not row.is_peer}
    for peer in rows:
        for column in COLUMNS:
            own, other = ours[peer.model].values(column.metric), peer.values(column.metric)
            if not peer.is_peer or column.compared is None or min(len(own), len(other)) < 2:
                continue
            found = seed_difference(own, other, CONFIDENCE, column.compared)
            yield {
                "model": peer.model,
                "metric": column.metric,
                "difference": found.difference,
                "lower": found.lower,
                "upper": found.upper,
                "within_seed_noise": not found.beyond_noise,
            }


def write_table(folder: Path, content: Mapping[str, Any]) -> None:
    """Write table.json, table.md and table.png of a table's content."""
    write_json(folder / TABLE, content)
    write_text(folder / MARKDOWN, markdown(content))
    write_png(plot_model_table(table_info(content)), folder / PLOT)


def markdown(content: Mapping[str, Any]) -> str:
    """The table, what it was measured on, the comparison with Qlib's own classes, and what failed."""
    plan, rows = content["plan"], content["rows"]
    first, last = plan["segments"]["test"]
    headings, cells = table_cells(content)
    lines = [*_grid(["model", *headings]), *(_line([name, *texts]) for name, texts in cells)]
    seeds = ", ".join(map(str, content["seeds"]))
    lines += [
        "",
        f"Mean ± standard deviation over seeds {seeds}; test segment {first} to {last}, vintage "
        f"{plan['data_version']}, features {plan['feature_set']}, horizon {plan['horizon']}; top {plan['topk']}, "
        f"{plan['n_drop']} replaced a day.",
    ]
    if content["differences"]:
        titles = {column.metric: (column.title, column.pattern) for column in COLUMNS}
        lines += ["", f"Ours minus Qlib's own class, and the {content['confidence']:.0%} interval of seed noise:", ""]
        lines += _grid(["model", "metric", "difference", "interval", "within seed noise"])
        for each in content["differences"]:
            title, pattern = titles[each["metric"]]
            numbers = [format(each[name], "+" + pattern) for name in ("difference", "lower", "upper")]
            within = "yes" if each["within_seed_noise"] else "no"
            lines.append(_line([each["model"], title, numbers[0], f"{numbers[1]} to {numbers[2]}", within]))
    failed = [(row["name"], seed, why) for row in rows for seed, why in row["failures"].items()]
    if failed:
        lines += ["", *(f"- {name}, seed {seed}, failed: {why}" for name, seed, why in failed)]
    return "\n".join(lines) + "\n"


def table_info(content: Mapping[str, Any]) -> ModelTableInfo:
    """What the plot shows of a table's content."""
    columns = {column.metric: column for column in COLUMNS}
    panels = []
    for metric in PLOTTED:
        points = [_points(row, row["metrics"][metric]) for row in content["rows"] if metric in row["metrics"]]
        column = columns[metric]
        panels.append((f"{column.title}, test segment", column.pattern.endswith("%"), points))
    seeds = len(content["seeds"])
    return ModelTableInfo(
        f"{content['plan']['data_version']}: {seeds} seeds, {content['confidence']:.0%} bands", panels
    )


def _points(row: Mapping[str, Any], band: Mapping[str, Any]) -> SeedPoints:
    interval = None if band["lower"] is None else (band["lower"], band["upper"])
    return SeedPoints(row["name"], band["values"], band["mean"], interval, row["is_peer"])


def _fill(settings: Settings, row: Row, plan: RunPlan, feature_version: str) -> None:
    """Train and evaluate one seed of a row, unless that is already done."""
    limit, portfolio = settings.training.time_limit_s, settings.portfolio.holding(plan.topk, plan.n_drop)
    if row.is_peer:
        config = resolve_config(row.model, seed=plan.seed)
        folder = Peer(plan, feature_version, config).folder(settings)
        if not is_current(settings, folder, portfolio):
            arguments: dict[str, Any] = {"plan": plan.model_dump(mode="json"), "feature_version": feature_version}
            arguments["config"] = config.model_dump(mode="json")
            run_stage("mlops_tasks.experiments.peers:train_peer_task", arguments, time_limit_s=limit)
    else:
        folder = TrainingFolder(UnifiedQlibTrainingEngine(settings).train(plan, feature_version, row.model))
        if not is_current(settings, folder, portfolio):
            asked = {"training_key": folder.key, "topk": plan.topk, "n_drop": plan.n_drop}
            run_stage("evaluation.evaluate", asked, time_limit_s=limit)
        row.training_keys[plan.seed] = folder.key
        row.run_ids[plan.seed] = log_run(settings, folder.key)
    row.results[plan.seed] = finite(all_metrics(folder))


def _record_seed_noise(settings: Settings, row: Row, data_version: str) -> None:
    trained = TrainingFolder.of(settings, next(iter(row.training_keys.values()))).manifest()
    metrics = [column.metric for column in COLUMNS if column.metric.startswith("test_")]
    result = {
        metric: {str(seed): found[metric] for seed, found in row.results.items() if metric in found}
        for metric in metrics
    }
    noise = SeedNoise(
        configuration=configuration_key(trained), model=row.model, data_version=data_version, result=result
    )
    record_seed_noise(settings, noise)


def _texts(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(column.title, shown(metrics.get(column.metric), column.pattern)) for column in COLUMNS]


def _grid(titles: Sequence[str]) -> list[str]:
    return [_line(titles), _line(["---"] * len(titles))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
