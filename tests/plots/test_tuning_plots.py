"""Plots of a search: what they compute is right, and what they draw is a readable, reproducible PNG."""

import pytest

from mlops_tasks.plots import tuning
from mlops_tasks.plots.figure import png_bytes

TRIALS = [
    {"number": 0, "state": "complete", "values": [0.01, 1.0], "params": {"rate": 0.01, "kind": "ols", "on": True}},
    {"number": 1, "state": "failed", "values": [], "params": {"rate": 0.5, "kind": "ols", "on": True}},
    {"number": 2, "state": "complete", "values": [0.03, 1.4], "params": {"rate": 1.0, "kind": "ridge", "on": True}},
    {"number": 3, "state": "pruned", "values": [0.0], "params": {"rate": 0.2, "kind": "ols", "on": True}},
    {"number": 4, "state": "complete", "values": [0.02, 1.5], "params": {"rate": 0.1, "kind": "ols", "on": True}},
]

PLOTS = {
    "history": lambda trials: tuning.plot_history(tuning.history_info(trials, "rank_ic", minimised=False)),
    "pareto": lambda trials: tuning.plot_pareto(tuning.pareto_info(trials, ["rank_ic", "turnover"], [0, 2])),
    "parallel": lambda trials: tuning.plot_parallel(tuning.parallel_info(trials, minimised=False, log=["rate"])),
    "importance": lambda trials: tuning.plot_parameter_importance({"rate": 0.7, "kind": 0.3} if trials else {}),
}


@pytest.mark.parametrize("trials", [TRIALS, []], ids=["trials", "none"])
@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_labelled_png_with_the_same_bytes_each_time(name, trials):
    """Also of a study without a complete trial."""
    figure = PLOTS[name](trials)
    assert png_bytes(figure) == png_bytes(PLOTS[name](trials))
    assert figure.axes[0].get_title("left") and figure.axes[0].get_ylabel() and figure.axes[-1].get_xlabel()


def test_the_history_keeps_the_best_so_far():
    """Of complete trials, upwards or downwards; the others are counted apart."""
    up, down = (tuning.history_info(TRIALS, "x", minimised) for minimised in (False, True))
    assert dict(up.best) == {0: 0.01, 2: 0.03, 4: 0.03}
    assert dict(down.best) == {0: 0.01, 2: 0.01, 4: 0.01}
    assert up.others == {"pruned": [3], "failed": [1]}


def test_the_front_is_marked():
    """Two of the three complete trials."""
    points = tuning.pareto_info(TRIALS, ["rank_ic", "turnover"], [0, 2]).points
    assert dict(points["front"]) == {0: True, 2: True, 4: False}


def test_parallel_lines_are_scaled_to_what_was_tried():
    """Logarithms where they were searched, words by their order, a constant in the middle; the best trial is 1."""
    info = tuning.parallel_info(TRIALS, minimised=False, log=["rate"])
    assert list(info.positions["rate"]) == pytest.approx([0.0, 1.0, 0.5])
    assert list(info.positions["kind"]) == [0.0, 1.0, 0.0]
    assert set(info.positions["on"]) == {0.5}
    assert info.ranges["kind"] == ("ols", "ridge")
    assert list(info.quality) == pytest.approx([0.0, 1.0, 0.5])
    assert list(tuning.parallel_info(TRIALS, minimised=True, log=[]).quality) == pytest.approx([1.0, 0.0, 0.5])
