"""Plots: what they compute is right, and what they draw is a readable, reproducible PNG."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mlops_tasks.experiments.inference.checks import RATIO_LEVEL, ratio_band, sample_ratio
from mlops_tasks.plots import comparison, drift, evaluation, experiments, explanation, lineage, vintage_diff
from mlops_tasks.plots.figure import png_bytes, svg_text

DAYS = pd.bdate_range("2023-01-02", periods=60, name="datetime")
RNG = np.random.default_rng(0)
NOISE = pd.Series(RNG.normal(0.001, 0.01, 60), DAYS)
EDGES = np.linspace(-1, 1, 51)
SCORES = drift.ScoreHistogram(EDGES, np.full(50, 0.02), np.full(50, 0.02))
DAILY = pd.DataFrame({"return": NOISE, "cost": 0.0002, "bench": NOISE * 0.5})
QUANTILES = pd.DataFrame(RNG.normal(size=(60, 10)), DAYS, pd.RangeIndex(1, 11))
TABLE = pd.DataFrame(
    {"exceedance": [3.1, np.nan, 0.8, 0.2], "importance_share": [0.3, 0.1, np.nan, np.nan]},
    index=["a", "b", "c", "score"],
)

CHANGES = pd.DataFrame(
    {
        "date": pd.to_datetime(["2020-01-01", "2020-01-04", "2020-02-29", "2020-06-30"]),
        "field": pd.Categorical(["close", "close", "volume", "close"], categories=["close", "volume", "factor"]),
        "class": pd.Categorical(["restated", "restated", "restated", "emptied"]),
    }
)
RANKED = pd.DataFrame(
    {"share": [0.6, 0.4], "rank_low": [1.0, 1.0], "rank_median": [1.0, 2.0], "rank_high": [2.0, 2.0]},
    index=["a", "$b_c$"],
)
SHARES = pd.DataFrame({"a": [0.3, 0.4], "b": [0.7, 0.6]}, index=["2024-01", "2024-02"])

RAW = [{"name": f"/data/bars-{n}.csv", "rows": 100, "sha256": f"{n}" * 64} for n in range(9)]
LINEAGE = {
    "raw": RAW,
    "vintage": {"data_version": "43d116071a2f2fcb", "rows": 900},
    "features": {"feature_set": "alpha158", "feature_version": "features0", "names": ["a", "b"]},
    "label": {"horizon": 1},
    "training": {
        "seed": 42,
        "code": {"commit": "3ec27c8a" * 5, "dirty": True},
        "environment": {"lock": None, "python": "3.11.7"},
    },
    "model": {"training_key": "a" * 16, "model": "linear", "digest": "d" * 64},
}
BARE = {**LINEAGE, "raw": [], "vintage": {"data_version": "x", "rows": None}, "label": None, "training": None}

LOOKS = pd.DataFrame({"effect": 0.001, "lower": -0.002, "upper": 0.004}, DAYS[30::10])
ARMS = [
    experiments.ArmCourse("a", NOISE, LOOKS),
    experiments.ArmCourse("$b", NOISE, pd.DataFrame({"effect": 0.0, "lower": -0.1, "upper": 0.1}, DAYS[30:])),
    experiments.ArmCourse("c", NOISE[:5], LOOKS[:0]),
]
COURSE = experiments.ExperimentInfo("orders", [experiments.MetricCourse("cost", 0.002, ARMS)])
NO_COURSE = experiments.ExperimentInfo(
    "orders", [experiments.MetricCourse("cost", 0.002, [experiments.ArmCourse("a", NOISE[:0], LOOKS[:0])])]
)
HALVES = {"a": 0.5, "b": 0.5}
NEW_UNITS = pd.DataFrame({"a": [30.0, 10.0, 0.0], "b": [20.0, 20.0, 20.0]}, DAYS[:3])

PLOTS: dict[str, Callable[[], Figure]] = {
    "lineage": lambda: lineage.plot_lineage(lineage.lineage_info("Lineage", LINEAGE)),
    "lineage_bare": lambda: lineage.plot_lineage(lineage.lineage_info("Lineage", BARE)),
    "ic": lambda: evaluation.plot_ic(evaluation.ic_info(NOISE, NOISE)),
    "equity": lambda: evaluation.plot_equity(evaluation.equity_info(DAILY, NOISE)),
    "quantiles": lambda: evaluation.plot_quantiles(evaluation.quantile_info(QUANTILES)),
    "quantiles_empty": lambda: evaluation.plot_quantiles(evaluation.quantile_info(QUANTILES * np.nan)),
    "curves": lambda: evaluation.plot_curves({"l2": {"train": [3.0, 2.0], "valid": [3.0, 2.5]}}),
    "curves_with_gaps": lambda: evaluation.plot_curves({"ic": {"valid": [None, 0.1, None, 0.2]}}),
    "curves_empty": lambda: evaluation.plot_curves({}),
    "importance": lambda: evaluation.plot_importance(evaluation.importance_info({"a": 1.0, "b": 3.0})),
    "importance_empty": lambda: evaluation.plot_importance(evaluation.importance_info({})),
    "drift": lambda: drift.plot_drift(drift.drift_info(TABLE, 0.75, SCORES, "Drift")),
    "drift_empty": lambda: drift.plot_drift(drift.drift_info(TABLE[:0], 0.75, SCORES, "Drift")),
    "vintage_diff": lambda: vintage_diff.plot_vintage_diff(vintage_diff.vintage_diff_info(CHANGES, "a to b")),
    "vintage_diff_empty": lambda: vintage_diff.plot_vintage_diff(vintage_diff.vintage_diff_info(CHANGES[:0], "a to b")),
    "influence": lambda: explanation.plot_influence(explanation.influence_info(RANKED, 4)),
    "influence_empty": lambda: explanation.plot_influence(explanation.influence_info(RANKED[:0], 4)),
    "groups": lambda: explanation.plot_groups(explanation.groups_info(SHARES, SHARES - 0.4, SHARES["b"])),
    "groups_without_labels": lambda: explanation.plot_groups(
        explanation.groups_info(SHARES, SHARES * np.nan, SHARES["b"] * np.nan)
    ),
    "dependence": lambda: explanation.plot_dependence(explanation.dependence_info([("$a", EDGES, EDGES**2)] * 3)),
    "dependence_empty": lambda: explanation.plot_dependence(explanation.dependence_info([("a", EDGES[:1], EDGES[:1])])),
    "effects": lambda: experiments.plot_effects(COURSE),
    "effects_empty": lambda: experiments.plot_effects(NO_COURSE),
    "differences": lambda: experiments.plot_differences(COURSE),
    "shares": lambda: experiments.plot_shares(experiments.shares_info(NEW_UNITS, HALVES, ratio_band, "orders")),
    "shares_empty": lambda: experiments.plot_shares(
        experiments.shares_info(NEW_UNITS[:0], HALVES, ratio_band, "orders")
    ),
    "comparison": lambda: comparison.plot_comparison(comparison.comparison_info(NOISE, 0.001, 0.2, "2 against 1")),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_labelled_png_with_the_same_bytes_each_time(name: str) -> None:
    """Every plot has a title and axis labels, and drawing it twice gives equal bytes."""
    figure = PLOTS[name]()
    content = png_bytes(figure)
    assert content.startswith(b"\x89PNG") and content == png_bytes(PLOTS[name]())
    assert b"matplotlib" not in content.lower()
    assert figure.axes[0].get_title("left") and figure.axes[0].get_ylabel() and figure.axes[-1].get_xlabel()


def test_shares_are_outside_of_the_band_where_the_check_finds_a_mismatch() -> None:
    """For two arms the band is the check's own: its edges, of a surplus and of a deficit, have the level as p-value."""
    info = experiments.shares_info(NEW_UNITS, {"a": 0.4, "b": 0.6}, ratio_band, "orders")
    assert info.units == 100 and info.surplus["a"].tolist() == pytest.approx([0.2, 0.1, 0.0])
    for share in (0.4 + info.above["a"].iloc[-1], 0.4 - info.below["a"].iloc[-1]):
        found = sample_ratio([100 * share, 100 * (1 - share)], [0.4, 0.6])
        assert found.p_value == pytest.approx(RATIO_LEVEL)
    assert ratio_band(np.array([3.0]), 0.4).tolist() == pytest.approx([0.6]), "three units prove nothing"


def test_equity_is_summed_after_costs() -> None:
    """Returns add up, costs are taken off, the drawdown is shown as it is given."""
    daily = pd.DataFrame({"return": [0.02, 0.05], "cost": [0.01, 0.0], "bench": [0.01, 0.08]}, DAYS[:2])
    below = pd.Series([0.0, -0.03], DAYS[:2])
    info = evaluation.equity_info(daily, below)
    np.testing.assert_allclose(info.portfolio, [0.01, 0.06])
    np.testing.assert_allclose(info.excess, [0.0, -0.03], atol=1e-15)
    assert info.drawdown is below


def test_importance_takes_the_strongest_first() -> None:
    """Shares of absolute values, the strongest first, cut at `top`."""
    info = evaluation.importance_info({"a": 1.0, "b": -3.0, "c": 1.0}, top=2)
    assert info.shares.to_dict() == {"b": 0.6, "a": 0.2} and info.n_features == 3


def test_changed_cells_are_counted_by_period_field_and_class() -> None:
    """Half a year is cut into periods of four days from the first change on; no change is lost or counted twice."""
    info = vintage_diff.vintage_diff_info(CHANGES, "t")
    assert info.by_period["close"].tolist() == [2, 0, 1] and info.by_period["volume"].tolist() == [0, 1, 0]
    assert [str(day.date()) for day in info.by_period.index] == ["2020-01-01", "2020-02-26", "2020-06-29"]
    assert info.by_class.to_dict() == {"emptied": 1, "restated": 3}


def test_quantiles_are_in_basis_points() -> None:
    """A mean label of 0.0001 is one basis point; days without values are left out."""
    frame = pd.DataFrame([[0.0001] * 10, [np.nan] * 10, [0.0003] * 10], DAYS[:3], pd.RangeIndex(1, 11))
    info = evaluation.quantile_info(frame)
    assert info.n_days == 2 and info.mean_bps.iloc[0] == pytest.approx(2.0)
    assert info.standard_error_bps.iloc[0] == pytest.approx(1.0)


def test_the_band_ends_at_the_confidence_bound() -> None:
    """After all n days the band is n times 1.96 standard errors of the mean."""
    info = comparison.comparison_info(NOISE, 0.002, 0.5, "t")
    assert info.band.iloc[-1] == pytest.approx(60 * 1.96 * 0.002)
    assert info.total.iloc[-1] == pytest.approx(NOISE.sum())


def test_a_lineage_leads_from_every_raw_file_to_the_model() -> None:
    """Each box lies on a way to the model, data flows to the right, and files beyond the first few are one box."""
    info = lineage.lineage_info("Lineage", LINEAGE)
    columns = {box.key: box.column for box in info.boxes}
    assert all(columns[start] <= columns[end] for start, end in info.edges)
    reached = {"model"}
    while more := {start for start, end in info.edges if end in reached} - reached:
        reached |= more
    assert reached == set(columns)
    files = [box.lines for box in info.boxes if box.column == 0]
    assert len(files) == lineage.SHOWN_FILES
    assert files[-1] == ("6 more files", "600 rows")
    (code,) = (box for box in info.boxes if box.key == "code")
    assert code.lines[0] == "commit 3ec27c8a3ec2 + changes"
    assert {box.key for box in lineage.lineage_info("Bare", BARE).boxes}.isdisjoint({"label", "code"})


def test_groups_come_in_the_order_of_their_mean_share_and_curves_are_about_their_mean() -> None:
    """The largest first, for shares and parts of the IC alike; a feature of one value has no curve."""
    found = explanation.groups_info(SHARES, SHARES - 1, SHARES["a"])
    assert list(found.shares.columns) == list(found.ic_parts.columns) == ["b", "a"]
    info = explanation.dependence_info([("a", EDGES, 3 + EDGES), ("b", EDGES[:1], EDGES[:1])])
    assert [curve.feature for curve in info.curves] == ["a"]
    np.testing.assert_allclose(info.curves[0].scores, EDGES, rtol=0, atol=1e-12)


def test_a_figure_within_a_page_is_text_in_the_colours_of_its_theme() -> None:
    """The same text each time, escaped, with no colour of paper or ink of its own."""
    text = svg_text(PLOTS["influence"](), "influence")
    assert text == svg_text(PLOTS["influence"](), "influence") != svg_text(PLOTS["influence"](), "other")
    assert text.startswith("<svg") and "$b_c$</text>" in text
    assert "#000000" not in text and "#ffffff" not in text and "var(--back)" in text
    assert "matplotlib" not in text.lower()
