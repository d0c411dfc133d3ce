"""The gate over a year of daily retrains against the policy without a budget: false promotions, and what is found.

`tests/evaluation/gate_years.py` says what is simulated. By AR(1) coefficient of the daily rank ICs, in 150 years each:
`p_false` is the probability of at least one promotion by superiority a year while all models are equally good,
`p_found` that of one by superiority when every retrain is better by 0.005, `p_worse_serving` that a worse model serves
after a year when every retrain is worse by 0.005. `today` has the same of the earlier policy, `eager` what
`gate.looks: daily` costs, `false_a_year` and `refreshed_a_year` the mean numbers among equals, `shorter` and `noisier`
the same as `p_found` with three years of bars and with a standard deviation of daily differences of 0.03.

`p_proven` is the probability, over `NOISE_YEARS` years, that noise is taken for skill within a year without a champion,
`p_proven_whole_level` the same when each look has the level of the whole year, as before; `p_skill_first` and `p_skill`
that a mean daily rank IC of 0.03 (standard deviation 0.1) is proven on the first look and within the year.

`with_experiments` has `p_false`, `p_found` and `p_worse_serving` of the same years when experiments with models share
the budget, whoever promotes; how many of them begin, are refused and have a winner in a year among equals; in how many
of these years a winner would have been false if it were promoted straight away (`p_false_straight`); and `p_false` if
every experiment sends its better arm to the gate, proven or not (`p_false_always`), and if the arms were chosen by the
gate's own test days besides (`p_false_picky`), which is what nobody should do.
"""

import time
from typing import Any

import numpy as np

YEARS = 150
NOISE_YEARS = 4000
GAIN, SKILL = 0.005, 0.03
RHOS = (0.0, 0.3, 0.7)


def run() -> dict[str, Any]:
    """All cells."""
    from tests.evaluation.gate_years import EAGER, POLICY, Case, before, gated, proofs, skilled, years

    started = time.perf_counter()

    def cell(gate: Any, better: float = 0.0, count: int = YEARS, **changes: Any) -> dict[str, list[Any]]:
        return {f"{rho:g}": years(Case(rho, better, **changes), gate, count) for rho in RHOS}

    def share(outcomes: dict[str, list[Any]], of: Any) -> dict[str, float]:
        return {rho: round(float(np.mean([of(each) for each in found])), 3) for rho, found in outcomes.items()}

    def table(gate: Any) -> dict[str, Any]:
        equal = cell(gate)
        return {
            "p_false": share(equal, lambda each: each.superior > 0),
            "p_found": share(cell(gate, GAIN), lambda each: each.superior > 0),
            "p_worse_serving": share(cell(gate, -GAIN), lambda each: each.serving > 0),
            "false_a_year": share(equal, lambda each: each.superior),
            "refreshed_a_year": share(equal, lambda each: each.refreshed),
        }

    ours, today = table(gated), table(before)
    eager = cell(lambda year: gated(year, EAGER), count=YEARS // 3)
    found = {"shorter": {"history": 756}, "noisier": {"deviation": 0.03}}
    more = {
        name: share(cell(gated, GAIN, **changes), lambda each: each.superior > 0) for name, changes in found.items()
    }

    def proven(skill: float, of: Any = bool, level: float | None = None, count: int = 2 * YEARS) -> dict[str, float]:
        found = {f"{rho:g}": years(skilled(rho, skill), lambda year: proofs(year, level=level), count) for rho in RHOS}
        return share(found, of)

    shared = with_experiments()
    worst, worst_today = (max(each["p_false"].values()) for each in (ours, today))
    return {
        "name": "gate_year",
        "ours": worst,
        "peer": worst_today,
        "unit": "largest p_false",
        "ratio": round(worst_today / max(worst, 1 / YEARS), 2),
        **ours,
        "today": today,
        "eager": {
            "p_false": share(eager, lambda each: each.superior > 0),
            "false_a_year": share(eager, lambda each: each.superior),
        },
        **more,
        "with_experiments": shared,
        "p_proven": proven(0.0, count=NOISE_YEARS),
        "p_proven_whole_level": proven(0.0, level=POLICY.alpha),
        "p_skill_first": proven(SKILL, lambda looks: 1 in looks),
        "p_skill": proven(SKILL),
        "years": YEARS,
        "seconds": round(time.perf_counter() - started, 1),
    }


def with_experiments(count: int = YEARS) -> dict[str, dict[str, float]]:
    """The cells of years with experiments."""
    from tests.evaluation.gate_years import Case, ExperimentYear, experimented, years

    def cell(better: float, **how: bool) -> dict[str, list[ExperimentYear]]:
        cases = {f"{rho:g}": Case(rho, better) for rho in RHOS}
        return {rho: years(case, lambda year: experimented(year, **how), count) for rho, case in cases.items()}

    def mean(cells: dict[str, list[ExperimentYear]], of: Any) -> dict[str, float]:
        return {rho: round(float(np.mean([of(each) for each in found])), 3) for rho, found in cells.items()}

    equal, better, worse = cell(0.0), cell(GAIN), cell(-GAIN)
    return {
        "p_false": mean(equal, lambda each: each.outcome.superior > 0),
        "p_found": mean(better, lambda each: each.outcome.superior > 0),
        "p_found_by_experiments": mean(better, lambda each: each.promoted > 0),
        "p_worse_serving": mean(worse, lambda each: each.outcome.serving > 0),
        "p_false_straight": mean(equal, lambda each: each.won > 0),
        "p_false_always": mean(cell(0.0, always=True), lambda each: each.outcome.superior > 0),
        "p_false_picky": mean(cell(0.0, always=True, picky=True), lambda each: each.outcome.superior > 0),
        "begun_a_year": mean(equal, lambda each: each.begun),
        "refused_a_year": mean(equal, lambda each: each.refused),
        "won_a_year": mean(equal, lambda each: each.won),
    }
