"""The rules that reject a candidate during its rollout, and end a champion's first hours: pure, over what is known of
both sides."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.config import RolloutRules

HELD_SHARE = 5
"""One name in this many is held, if `portfolio.topk` is more than that."""
_ROWS_A_BIN, _MOST_BINS = 10, 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sides:
    """What messages call the model that is judged, and the one that it is measured against."""

    judged: str = "the candidate"
    rival: str = "the champion"


ROLLOUT = Sides()


@dataclass(frozen=True)
class Measures:
    """What is known of a candidate since its rollout has begun, or of a new champion (`candidate` here) since its
    promotion, against the one that it replaced (`champion`)."""

    answers: int
    """By the candidate."""
    failures: int
    """Requests on which the candidate failed, so that the champion answered, or on which a new champion failed."""
    champion_answers: int
    p99_ms: float = float("nan")
    """99th percentile of the candidate's latency; NaN: there is none."""
    champion_p99_ms: float = float("nan")
    scores: pd.DataFrame | None = None
    """Scores of the newest day that both have scored on the same data: columns `champion` and `candidate`, index
    instrument, NaN for a missing score; None: there is no such day."""
    day: str = ""


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models' scores of one day; NaN for unknown values."""

    coverage: float
    rank_correlation: float
    psi: float
    turnover: float


def p99(values: Floats) -> float:
    """What 99% of some values do not exceed; NaN where there are none."""
    return float(np.quantile(values, 0.99)) if len(values) else float("nan")


def breach(found: Measures, rules: RolloutRules, topk: int, sides: Sides = ROLLOUT) -> str | None:
    """The first rule that is broken, in words with its numbers; None: none is."""
    asked = found.answers + found.failures
    rate = found.failures / asked if asked else 0.0
    if rules.max_error_rate is not None and asked >= rules.min_answers and rate > rules.max_error_rate:
        return f"{sides.judged} failed on {rate:.2%} of {asked} requests, limit {rules.max_error_rate:.2%}"
    enough = min(found.answers, found.champion_answers) >= rules.min_answers
    ratio = found.p99_ms / found.champion_p99_ms if enough and found.champion_p99_ms > 0 else 0.0
    if rules.max_latency_ratio is not None and ratio > rules.max_latency_ratio:
        return (
            f"99% of {sides.judged}'s answers take up to {found.p99_ms:.1f} ms, of {sides.rival}'s "
            f"{found.champion_p99_ms:.1f} ms: {ratio:.1f} times as long, limit {rules.max_latency_ratio:g}"
        )
    if found.scores is None or found.scores["champion"].notna().sum() == 0:
        return None
    broken = _broken(compare_scores(found.scores, topk), rules, sides)
    return None if broken is None else f"{broken}, on {found.day}"


def _broken(found: Comparison, rules: RolloutRules, sides: Sides) -> str | None:
    """NaN breaks no rule, but that of a candidate whose scores have no order where the champion's have one."""
    if rules.min_coverage is not None and found.coverage < rules.min_coverage:
        limit = f"limit {rules.min_coverage:.1%}"
        return f"{sides.judged} scores {found.coverage:.1%} of {sides.rival}'s instruments, {limit}"
    least = rules.min_rank_correlation
    if least is not None and found.rank_correlation < least:
        return f"the rank correlation with {sides.rival}'s scores is {found.rank_correlation:.3f}, limit {least:g}"
    if rules.max_psi is not None and found.psi > rules.max_psi:
        return f"the population stability index of its scores is {found.psi:.2f} beyond chance, limit {rules.max_psi:g}"
    if rules.max_turnover is not None and found.turnover > rules.max_turnover:
        limit = f"limit {rules.max_turnover:.0%}"
        return f"a switch from {sides.rival} replaces {found.turnover:.0%} of the names held, {limit}"
    return None


def compare_scores(scores: pd.DataFrame, topk: int) -> Comparison:
    """Coverage of all instruments with a champion's score; the rest over those that both have scored.

    A candidate whose scores are all the same has the rank correlation -1 where the champion's are not, since nothing
    can be chosen by them. With fewer than five instruments only the coverage is known.

    Parameters
    ----------
    scores
        As `Measures.scores`.
    """
    known = scores["champion"].notna()
    both = scores.dropna()
    coverage = len(both) / int(known.sum()) if known.any() else float("nan")
    if len(both) < HELD_SHARE:
        return Comparison(coverage, float("nan"), float("nan"), float("nan"))
    champion, candidate = (both[name].to_numpy(np.float64) for name in ("champion", "candidate"))
    if np.ptp(champion) == 0:
        return Comparison(coverage, float("nan"), float("nan"), float("nan"))
    if np.ptp(candidate) == 0:
        return Comparison(coverage, -1.0, float("nan"), float("nan"))
    correlation = float(both["champion"].corr(both["candidate"], method="spearman"))
    held = max(1, min(topk, len(both) // HELD_SHARE))
    return Comparison(coverage, correlation, psi_beyond_chance(champion, candidate), _turnover(both, held))


def psi_beyond_chance(reference: Floats, current: Floats) -> float:
    """Population stability index of standardised values, less its expected value; about 0 for equal distributions.

    Parameters
    ----------
    reference, current
        Shape (n,) and (m,), finite, neither all the same. Each is standardised by its own mean and deviation: a model
        may score on a scale of its own.

    Notes
    -----
    Bins are quantiles of the reference. For equal distributions the index is about (bins - 1) (1/n + 1/m) (Yurdakul and
    Naranjo, 2020, Statistical properties of the population stability index), and a little less of standardised values.
    """
    bins = int(np.clip(min(len(reference), len(current)) // _ROWS_A_BIN, 2, _MOST_BINS))
    first, second = ((each - each.mean()) / each.std() for each in (reference, current))
    edges = np.quantile(first, np.linspace(0, 1, bins + 1)[1:-1])
    shares = []
    for values in (first, second):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=bins)
        shares.append(np.maximum(counts, 0.5) / len(values))
    index = float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))
    return index - (bins - 1) * (1 / len(reference) + 1 / len(current))


def _turnover(both: pd.DataFrame, held: int) -> float:
    """Share of the champion's top names that are not among the candidate's."""
    first, second = (set(both[name].nlargest(held).index) for name in ("champion", "candidate"))
    return 1 - len(first & second) / held
