"""A search of 20 trials against defaults, on planted markets; what the gate lets through on noise.

Planted markets: five kinds of signal, two strengths, three draws each. The tuned model is the study's best trial by
validation rank IC, its opponents are LightGBM's own defaults, and Qlib's with the best of 20 seeds
(`tests/tuning/luck.py`). All are measured by the mean daily rank IC on test days that nothing has seen. `ours` and
`peer` are that of the tuned model and of LightGBM's own defaults; `p_value` is of a paired one-sided t-test over the
markets, `share_better` the share of markets in which the tuned model is ahead, `vs_zoo_*` the same against Qlib's
defaults. On noise, `refused` is the share of studies whose best trial the gate refuses (the smaller of: no champion,
LightGBM's defaults as champion), with its exact 95% interval, and `naive_refused` that of a plain test of the best
trial on its validation days. `accepted_planted` is the gate's acceptance where there is something to find.
"""

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import in_process

TRIALS = 20
KINDS = ("linear", "sparse", "interaction", "threshold", "xor")
MARKETS = [(kind, snr, seed) for kind in KINDS for snr in (0.02, 0.08) for seed in range(3)]
NOISE_STUDIES = 80
SHARDS = 2


def run() -> dict:
    """Both families, on two processes."""
    with ThreadPoolExecutor(SHARDS) as pool:
        shards = list(pool.map(lambda shard: in_process(__name__, "shard", shard), range(SHARDS)))
    planted = [each for shard in shards for each in shard["planted"]]
    noise = np.array([each for shard in shards for each in shard["noise"]], dtype=int)
    tuned, library, zoo = (np.array([each[name] for each in planted]) for name in ("tuned", "library", "zoo"))
    promoted = noise.mean(axis=0)
    against_zoo = against(tuned, zoo)
    return {
        "name": "tune",
        "ours": round(float(tuned.mean()), 5),
        "peer": round(float(library.mean()), 5),
        "unit": "test rank IC",
        "ratio": round(float(tuned.mean() / library.mean()), 3),
        **against(tuned, library),
        **{f"vs_zoo_{name}": value for name, value in against_zoo.items()},
        "zoo_defaults": round(float(zoo.mean()), 5),
        "by_kind": {
            kind: [
                round(float(values[[each["kind"] == kind for each in planted]].mean()), 4)
                for values in (tuned, library)
            ]
            for kind in KINDS
        },
        "oracle": round(float(np.mean([each["oracle"] for each in planted])), 5),
        "markets": len(planted),
        "accepted_planted": round(float(np.mean([each["accepted"] for each in planted])), 3),
        "noise_studies": len(noise),
        "refused": round(float(1 - promoted[:2].max()), 4),
        "refused_interval": exact_interval(int((1 - noise[:, :2]).sum(axis=0).min()), len(noise)),
        "naive_refused": round(float(1 - promoted[2]), 4),
        "seconds": round(sum(shard["seconds"] for shard in shards), 1),
    }


def against(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """The paired comparison over markets."""
    from scipy.stats import ttest_rel

    return {
        "mean_gain": round(float((ours - theirs).mean()), 5),
        "p_value": float(f"{ttest_rel(ours, theirs, alternative='greater').pvalue:.2g}"),
        "share_better": round(float((ours > theirs).mean()), 3),
    }


def exact_interval(successes: int, trials: int) -> list[float]:
    """95% interval of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(0.95, "exact")
    return [round(float(found.low), 4), round(float(found.high), 4)]


def measure(shard: int) -> dict:
    """Every second market and noise study."""
    started = time.perf_counter()
    planted = [planted_study(*each) for each in list(enumerate(MARKETS))[shard::SHARDS]]
    noise = [noise_study(number) for number in range(NOISE_STUDIES)[shard::SHARDS]]
    return {"planted": planted, "noise": noise, "seconds": time.perf_counter() - started}


def planted_study(number: int, market: tuple[str, float, int]) -> dict:
    """Test rank ICs of the tuned model and of both defaults."""
    from tests.planted import Shape, plant
    from tests.tuning.luck import LIBRARY, ZOO, Market

    kind, snr, seed = market
    with tempfile.TemporaryDirectory() as folder:
        here = Market(plant(kind, Shape(days=250, instruments=40, snr=snr), 100 + seed), Path(folder))
        study = here.search(TRIALS, number)
        chosen, library, zoo = here.chosen(study), here.train(LIBRARY, 0), here.best_of_seeds(ZOO, TRIALS)
        means = {"tuned": chosen, "library": library, "zoo": zoo}
        result = {
            **{name: float(each.rank_ic("test").mean()) for name, each in means.items()},
            "kind": kind,
            "oracle": here.planted.oracle,
            "accepted": here.decisions(study, chosen, library)[0],
        }
    print(market, result, file=sys.stderr, flush=True)
    return result


def noise_study(number: int) -> tuple[bool, bool, bool]:
    """What the gate, without and with a champion, and a naive test let through."""
    from tests.planted import Shape, plant
    from tests.tuning.luck import LIBRARY, Market

    with tempfile.TemporaryDirectory() as folder:
        here = Market(plant("noise", Shape(days=250, instruments=40), 1000 + number), Path(folder))
        study = here.search(TRIALS, number)
        result = here.decisions(study, here.chosen(study), here.train(LIBRARY, 0))
    print("noise", number, result, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[2]))))
