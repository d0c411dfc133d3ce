"""A generated market of 1,000 names x 15 years with planted truth: what the rules find, miss and take wrongly.

`ours` is the share of the planted errors that are visible in principle and are found (quarantined, or named by a
warning), `peer` what is asked; `ratio` is ours / peer. `good_rows_lost` is the share of rows that nothing planted
explains and that are quarantined all the same, `events_lost` counts true events (crashes, takeovers, splits with their
factors, halts, special sessions, blank tails) that cost a row, `dead_names_lost` names that died and vanished whole.
The tables by kind and by rule are printed before the line. `fatal` are the three units that stay and reject it.
`BENCH_TRUTH_NAMES`, `BENCH_TRUTH_YEARS` and `BENCH_TRUTH_SEED` make another market; no rule was made with seed 13.
"""

import os
import time

NAMES, YEARS, SEED = (
    int(os.environ.get(f"BENCH_TRUTH_{name}", default))
    for name, default in (("NAMES", "1000"), ("YEARS", "15"), ("SEED", "13"))
)
ASKED = 0.98


def run() -> dict:
    """Make the market, judge it, print both tables."""
    from mlops_tasks.data.validation.expectations import load_suites
    from mlops_tasks.data.validation.rules import Rules, validate
    from tests.data.planted_market import make_market
    from tests.data.planted_truth import judge, render

    market = make_market(NAMES, YEARS, SEED)
    started = time.perf_counter()
    validation = validate(market.frame, Rules(load_suites()))
    seconds = time.perf_counter() - started
    truth = judge(market, validation)
    print(render(truth))
    return {
        "name": "validate_truth",
        "ours": round(truth.found_share, 4),
        "peer": ASKED,
        "unit": "share of visible errors found",
        "ratio": round(truth.found_share / ASKED, 3),
        "rows": truth.rows,
        "visible_errors": int(truth.kinds.loc[truth.kinds["error"], "visible"].sum()),
        "good_rows_lost": truth.good_rows_lost / truth.rows,
        "events_lost": truth.events_lost,
        "dead_names": truth.dead_names,
        "dead_names_lost": truth.dead_names_lost,
        "fatal": validation.fatal,
        "seconds": round(seconds, 1),
    }
