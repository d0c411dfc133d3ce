"""The algorithm selector's first choice against LightGBM with its defaults, on planted markets and on real panels.

Planted markets: the nine kinds of `tests/planted.py`, two strengths, two draws each. The first choice of the whole zoo,
with its first hyper-parameters, and LightGBM are trained and measured by the mean daily rank IC on test days that
nothing has seen. There are two kinds of defaults: `peer` are the zoo's (Qlib's for Alpha158 of whole markets), and
`vs_library_*` compares with LightGBM's own, which suit small panels better. `p_value` is of a paired one-sided t-test
over the markets, `share_better` the share in which the selector is ahead by more than a thousandth, `share_equal` the
share within a thousandth. `by_kind` has, by kind of signal: selector, zoo's defaults, LightGBM's own, the best in
hindsight of all that were trained, the oracle, and what was chosen. On a quarter of the instruments of each real panel
(Alpha158, tomorrow's return), `panels` has both rank ICs, the difference with its autocorrelation-robust error, and
`p_worse`, of the test that the selector is the worse one.
"""

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.bench_tune import against
from tests.benchmarks.panels import PANELS
from tests.benchmarks.processes import in_process

KINDS = ("linear", "sparse", "interaction", "threshold", "xor", "window_sum", "lag_product", "periodic", "regime")
MARKETS = [(kind, snr, seed) for seed in range(2) for snr in (0.05, 0.15) for kind in KINDS]
DAYS, INSTRUMENTS = 300, 40
POOL = {"linear": {}, "mlp": {}, "lstm": {"window": 10}}
"""Beside the choice and both LightGBMs, what the best in hindsight is taken from."""
PANEL_STARTS = {"us_sp500_5yr": "2013-01-01", "cn_csi300_qlib_2010_2026": "2018-01-01"}
EVERY = 4
SHARDS = 2
EQUAL = 0.001


def run() -> dict:
    """Both families, on two processes."""
    with ThreadPoolExecutor(SHARDS) as pool:
        shards = list(pool.map(lambda shard: in_process(__name__, "shard", shard), range(SHARDS)))
    markets = [each for shard in shards for each in shard["markets"]]
    chosen, zoo, library = (np.array([each["skills"][name] for each in markets]) for name in ("chosen", "zoo", "own"))
    return {
        "name": "selector",
        "ours": round(float(chosen.mean()), 5),
        "peer": round(float(zoo.mean()), 5),
        "unit": "test rank IC",
        "ratio": round(float(chosen.mean() / zoo.mean()), 3),
        **against(chosen, zoo),
        "share_better": round(float((chosen > zoo + EQUAL).mean()), 3),
        "share_equal": round(float((np.abs(chosen - zoo) <= EQUAL).mean()), 3),
        "library": round(float(library.mean()), 5),
        **{f"vs_library_{name}": value for name, value in against(chosen, library).items()},
        "by_kind": {kind: _row([each for each in markets if each["kind"] == kind]) for kind in KINDS},
        "markets": len(markets),
        "panels": {name: value for shard in shards for name, value in shard["panels"].items()},
        "seconds": round(sum(shard["seconds"] for shard in shards), 1),
    }


def _row(markets: list[dict]) -> list[Any]:
    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 4)

    skills = [each["skills"] for each in markets]
    best = mean([max(each.values()) for each in skills])
    names = sorted({each["model"] for each in markets})
    means = [mean([each[name] for each in skills]) for name in ("chosen", "zoo", "own")]
    return [*means, best, mean([each["oracle"] for each in markets]), "/".join(names)]


def measure(shard: int) -> dict:
    """Every second market, and a panel."""
    started = time.perf_counter()
    markets = [planted_market(*each) for each in MARKETS[shard::SHARDS]]
    panels = {name: real_panel(name) for name in list(PANEL_STARTS)[shard::SHARDS] if (PANELS / name).is_dir()}
    return {"markets": markets, "panels": panels, "seconds": time.perf_counter() - started}


def planted_market(kind: str, snr: float, seed: int) -> dict:
    """What the selector chooses, and what all candidates reach."""
    from tests.planted import Shape, plant
    from tests.tuning.luck import LIBRARY

    made = plant(kind, Shape(days=DAYS, instruments=INSTRUMENTS, snr=snr), 500 + seed)
    model, overrides = first_choice(made.data)
    candidates = {"chosen": (model, overrides), "zoo": ("lightgbm", {}), "own": ("lightgbm", dict(LIBRARY))}
    candidates |= {name: (name, each) for name, each in POOL.items() if name != model}
    skills = {name: float(test_rank_ic(made.data, *each).mean()) for name, each in candidates.items()}
    result = {"kind": kind, "model": model, "skills": skills, "oracle": made.oracle}
    print(snr, seed, result, overrides, file=sys.stderr, flush=True)
    return result


def real_panel(name: str) -> dict:
    """The choice for every fourth instrument of a panel, against the zoo's LightGBM."""
    from mlops_tasks.evaluation.significance import cosine_mean

    with tempfile.TemporaryDirectory() as folder:
        data = panel_data(name, Path(folder))
    model, overrides = first_choice(data)
    ours, peer = (test_rank_ic(data, *each) for each in ((model, overrides), ("lightgbm", {})))
    test = cosine_mean(ours - peer)
    result = {
        "model": model,
        "ours": round(float(ours.mean()), 5),
        "peer": round(float(peer.mean()), 5),
        "difference": round(test.mean, 5),
        "standard_error": round(test.standard_error, 5),
        "p_worse": round(1 - test.p_one_sided, 3),
        "days": test.n,
    }
    print(name, result, overrides, file=sys.stderr, flush=True)
    return result


def first_choice(data: Any) -> tuple[str, dict[str, Any]]:
    """The first of the ranking, and its first hyper-parameters."""
    from mlops_tasks.modeling.model_zoo.zoo import model_zoo
    from mlops_tasks.tuning.data_profile import profile_data
    from mlops_tasks.tuning.selector import select_algorithm

    best = select_algorithm(profile_data(data), model_zoo()).ranking[0]
    return best.model, dict(best.hyperparameters)


def test_rank_ic(data: Any, model: str, overrides: dict[str, Any]) -> pd.Series:
    """Daily, on the test days; 0 on a day on which all scores are the same."""
    from mlops_tasks.columns import DATETIME, LABEL, SCORE
    from mlops_tasks.evaluation.ic import daily_rank_ic
    from mlops_tasks.modeling.configuration import resolve_config
    from mlops_tasks.modeling.fitting import Prepared
    from mlops_tasks.tuning.trial import fit_and_score
    from tests.planted import ONE_THREAD

    config = resolve_config(model, overrides, seed=1)
    scored = fit_and_score(Prepared.of(data, config), config, ONE_THREAD)
    scored = scored[scored.index.get_level_values(DATETIME) >= pd.Timestamp(data.segments["test"][0])].dropna()
    return daily_rank_ic(scored[SCORE], scored[LABEL]).fillna(0.0)


def panel_data(name: str, home: Path) -> Any:
    """Alpha158 and tomorrow's return of some instruments, in the default segments."""
    from mlops_tasks.config import Settings
    from mlops_tasks.data.vintages import canonical_bars, write_vintage
    from mlops_tasks.features.store import FeatureStore
    from mlops_tasks.modeling.dataset import load_learning_data
    from mlops_tasks.training.plan import make_plan

    settings = Settings(home=home)
    vintage = write_vintage(settings, canonical_bars(panel_bars(name)), None, {"source": name, "quarantined": 0})
    features = FeatureStore(settings).compute(vintage)
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["lightgbm"]})
    return load_learning_data(settings, plan.learning_spec(features.feature_version))


def panel_bars(name: str) -> pd.DataFrame:
    """Raw bars of every fourth share that were traded."""
    frame = pd.read_parquet(PANELS / name / "panel.parquet")
    frame = frame.rename(columns={"date": "datetime"}).assign(vwap=np.nan)
    if "factor" not in frame:
        frame["factor"] = 1.0
    prices = ["open", "high", "low", "close"]
    frame[prices] = frame[prices].div(frame["factor"], axis=0)
    index = frame["instrument"].str.match(r"SH000|SZ399")
    names = sorted(frame["instrument"][~index].unique())[::EVERY]
    kept = frame["instrument"].isin(names) & (frame["volume"] > 0) & frame[prices].notna().all(axis=1)
    return frame[kept & (frame["datetime"] >= PANEL_STARTS[name])]


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[2]))))
