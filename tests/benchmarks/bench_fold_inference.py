"""What is taken for skill where there is none: a mean, intervals over folds, the algorithm selector, early stopping.

`sizes`: by days and by AR(1) coefficient, the share of series of mean zero that the test of a mean refuses at the level
5%, two-sided, and that of Newey and West.
`coverage`: by splits and by panel, the share of 95% intervals that hold the true mean rank IC, with the plain error and
with the one that allows for folds that train each other's models (ridge regressions, `tests/evaluation/fold_panels.py`;
where a signal is planted, the true mean is that over all panels). `selector`: the share of noise panels in which the
algorithm selector finds something to learn, and `selector_planted` that of panels with a weak linear signal. `stopped`:
the share of trainings on noise, stopped by rank IC, whose deflated Sharpe ratio is 0.95 or more on the days that
stopping has not seen, and `stopped_seen` on all validation days of a training that was stopped on them. `searched`: the
share of searches on noise (ten trials of XGBoost, each stopped by IC) whose best trial passes the gate's checks of a
search, with its exact 95% interval, `searched_planted` that of searches where there is a weak signal. `ours` is the
share of misses on noise, over splits that train each other's models, of the interval that knows it, `peer` that of the
plain one; 0.05 is meant.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.bench_tune import exact_interval
from tests.evaluation.fold_panels import SPLITTERS, Panels

PANELS = {
    "noise": Panels(),
    "noise, features with memory 0.9": Panels(memory=0.9),
    "signal 0.001": Panels(snr=0.001),
    "signal 0.01": Panels(snr=0.01),
}
NOISE_COUNT, SIGNAL_COUNT = 4000, 600
"""Panels of each kind."""
MARKETS, TRAININGS, SEARCHES = 200, 500, 200
TRIALS = 10
SERIES, DAYS, RHOS = 4000, (60, 120, 252), (0.0, 0.3, 0.7)


def run() -> dict:
    """All of it, one after the other."""
    shares = coverage(NOISE_COUNT, SIGNAL_COUNT)
    noise = np.array([plain_and_aware["noise"] for name, plain_and_aware in shares.items() if name != "walk-forward"])
    plain, aware = 1 - noise.mean(axis=0)
    return {
        "name": "fold_inference",
        "ours": round(float(aware), 4),
        "peer": round(float(plain), 4),
        "unit": "share of 95% intervals that miss on noise",
        "ratio": round(float(plain / aware), 2),
        "sizes": sizes(SERIES),
        "coverage": shares,
        "selector": found_by_selector("noise", MARKETS),
        "selector_planted": found_by_selector("linear", MARKETS // 5),
        **stopped_on_noise(TRAININGS),
        "searched": float(np.mean(noise_searches := searches("noise", SEARCHES))),
        "searched_interval": exact_interval(sum(noise_searches), SEARCHES),
        "searched_planted": float(np.mean(searches("linear", SEARCHES // 6))),
    }


def sizes(count: int) -> dict[str, dict[str, list[float]]]:
    """Refusals of a true mean of zero, by cosine terms and by Newey and West."""
    from scipy.signal import lfilter

    from mlops_tasks.evaluation.newey_west import newey_west_mean
    from mlops_tasks.evaluation.significance import cosine_mean

    found: dict[str, dict[str, list[float]]] = {}
    for days in DAYS:
        shocks = np.random.default_rng(days).normal(size=(count, days + 200))
        drawn = {rho: lfilter([1.0], [1.0, -rho], shocks, axis=1)[:, 200:] for rho in RHOS}
        found[str(days)] = {
            f"{rho:g}": [
                round(float(np.mean([test(each).p_two_sided <= 0.05 for each in series])), 4)
                for test in (cosine_mean, newey_west_mean)
            ]
            for rho, series in drawn.items()
        }
    return found


def coverage(noise: int, signal: int) -> dict[str, dict[str, list[float]]]:
    """By splits and panel: coverage of the plain and of the fold-aware 95% interval."""
    from mlops_tasks.evaluation.fold_inference import inflated, variance_inflation
    from mlops_tasks.evaluation.significance import cosine_mean

    found: dict[str, dict[str, list[float]]] = {name: {} for name in SPLITTERS}
    for kind, panels in PANELS.items():
        drawn = [panels.daily(list(SPLITTERS.values()), seed) for seed in range(signal if panels.snr else noise)]
        for (name, splitter), dailies in zip(SPLITTERS.items(), zip(*drawn, strict=True), strict=True):
            inflation = variance_inflation(list(splitter.splits(panels.days)), panels.days)
            plain = [cosine_mean(daily) for daily in dailies]
            true = 0.0 if panels.snr == 0 else float(np.mean([test.mean for test in plain]))
            both = (plain, [inflated(test, inflation) for test in plain])
            found[name][kind] = [float(np.mean([t.lower <= true <= t.upper for t in tests])) for tests in both]
    return found


def found_by_selector(kind: str, count: int, first: int = 0) -> float:
    """Share of planted markets in which there is said to be something to learn."""
    from mlops_tasks.modeling.model_zoo.zoo import model_zoo
    from mlops_tasks.tuning.data_profile import profile_data
    from mlops_tasks.tuning.selector import select_algorithm
    from tests.planted import Shape, plant

    zoo = {name: model_zoo()[name] for name in ("lightgbm", "linear")}
    shape = Shape(days=200, instruments=40, snr=0.01)
    profiles = [profile_data(plant(kind, shape, 4000 + seed).data) for seed in range(first, first + count)]
    return float(np.mean([select_algorithm(profile, zoo).skill_found for profile in profiles]))


def stopped_on_noise(count: int, first: int = 0) -> dict[str, float]:
    """Share of early-stopped trainings on noise with a deflated Sharpe ratio of 0.95 or more."""
    from mlops_tasks.evaluation.backtest_overfitting import deflated_sharpe_ratio
    from mlops_tasks.tuning.study import StudyConfig
    from tests.planted import Shape, plant
    from tests.tuning.luck import HORIZON, LIBRARY, MODEL, Market

    stopping, share, passed = {"metric": "rank_ic", "patience": 30}, StudyConfig(model=MODEL).watched_share, []
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            market = Market(plant("noise", Shape(days=1000, instruments=20), 6000 + seed), Path(folder))
            seen = market.train(LIBRARY, 0, stopping).rank_ic("valid")
            unseen = market.train(LIBRARY, 0, {**stopping, "valid_share": share}).rank_ic("valid")
        unseen = unseen[market.planted.data.unwatched_since(share, HORIZON) :]
        passed.append([deflated_sharpe_ratio(each.to_numpy(), 1).probability >= 0.95 for each in (unseen, seen)])
    return dict(zip(("stopped", "stopped_seen"), np.mean(passed, axis=0).tolist(), strict=True))


def searches(kind: str, count: int, first: int = 0) -> list[bool]:
    """Of each search whether its best trial passes the gate's checks of a search."""
    from tests.planted import Shape, plant
    from tests.tuning.luck import Market

    passed = []
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as folder:
            planted = plant(kind, Shape(days=400, instruments=20, snr=0.05), 8000 + seed)
            market = Market(planted, Path(folder), model="xgboost", first=None)
            study = market.search(TRIALS, seed)
            passed.append(market.search_passes(study, market.chosen(study)))
    return passed
