"""The promotion gate: pure policy. It knows no registry; the caller brings the evidence and acts on the decision.

Rules, the first that applies decides:

1. `leak_certificate`, `test_days`, `coverage`, `constant_scores`: a challenger that fails a sanity check is rejected.
2. `bootstrap`: without a champion, sanity is enough.
3. `unchanged`: the challenger is the champion's own training; keep.
4. `not_comparable`: fewer common days than `min_test_days`; keep.
5. `superiority`: mean gain of daily rank IC above zero, at least `min_gain`, with a one-sided p <= `alpha`; promote.
6. `refresh`: the champion is older than `max_champion_age_days` trading days and the lower one-sided bound of the
   gain is at least -`non_inferiority_margin`; promote.
7. `no_proven_gain`: keep.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from mlops_tasks.config import GateSettings
from mlops_tasks.evaluation.ic import constant_days_share, daily_rank_ic
from mlops_tasks.evaluation.significance import MeanTest, newey_west_mean
from mlops_tasks.files import finite_or_none

GatePolicy = GateSettings
"""The gate's numbers are settings."""

Outcome = Literal["promote", "keep", "reject"]


@dataclass(frozen=True)
class CandidateEvidence:
    """What the gate knows of one model, measured on the challenger's test dates."""

    training_key: str
    rank_ic: pd.Series
    """Daily rank IC by datetime, both models on the same dates."""
    coverage: float
    """Share of the universe's rows in the test segment with a finite score."""
    constant_days_share: float
    """Share of days on which all scores are the same."""
    last_training_date: date
    """Last day of the train segment."""
    uncertified: str | None = None
    """Why no leak certificate covers what was learned from, and what to do; None: one does."""


@dataclass(frozen=True)
class GateDecision:
    """What was decided, by which rule, and the numbers behind it."""

    decision: Outcome
    rule: str
    reasons: tuple[str, ...]
    gain: float | None = None
    """Mean daily rank IC of the challenger minus the champion's."""
    p_value: float | None = None
    """One-sided, against gain > 0, autocorrelation-robust."""
    lower_bound: float | None = None
    """One-sided lower bound of the gain at level 1 - alpha."""
    n_days: int = 0
    champion_age_days: int | None = None
    """Trading days by which the champion's training data end before the challenger's."""
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def promotes(self) -> bool:
        """Whether the challenger becomes the champion."""
        return self.decision == "promote"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become None."""
        numbers = {"gain": self.gain, "p_value": self.p_value, "lower_bound": self.lower_bound}
        return {
            "decision": self.decision,
            "rule": self.rule,
            "reasons": list(self.reasons),
            "n_days": self.n_days,
            "champion_age_days": self.champion_age_days,
            "policy": self.policy,
            **{name: finite_or_none(value) for name, value in numbers.items()},
        }


def evidence(training_key: str, score: pd.Series, label: pd.Series, last_training_date: date) -> CandidateEvidence:
    """Evidence from scores and labels.

    Parameters
    ----------
    score, label
        Series with MultiIndex (datetime, instrument). `label` holds every row of the universe on the test dates (NaN
        where the return is not known yet); rows that `score` lacks count as not covered.
    """
    aligned = score.reindex(label.index)
    finite = np.isfinite(aligned.to_numpy(np.float64, na_value=np.nan))
    share = constant_days_share(aligned)
    return CandidateEvidence(
        training_key=training_key,
        rank_ic=daily_rank_ic(aligned, label),
        coverage=float(finite.mean()) if len(finite) else 0.0,
        constant_days_share=1.0 if np.isnan(share) else share,
        last_training_date=last_training_date,
    )


def should_promote(
    challenger: CandidateEvidence,
    champion: CandidateEvidence | None,
    policy: GateSettings,
    trading_days: pd.DatetimeIndex | None = None,
) -> GateDecision:
    """Decide whether `challenger` replaces `champion`; see the module's rules.

    Parameters
    ----------
    challenger, champion
        Evidence on the same dates; None when there is no champion. Days on which either rank IC is NaN are left out.
    policy
        The gate's numbers.
    trading_days
        The market's calendar, for the champion's age; None counts Mondays to Fridays.
    """
    failed = _failed_sanity_check(challenger, policy)
    if failed is not None:
        return failed
    n_days = int(challenger.rank_ic.notna().sum())
    numbers = policy.model_dump()
    reasons: tuple[str, ...]
    if champion is None:
        sane = f"coverage {challenger.coverage:.1%} and {n_days} test days pass the sanity checks"
        reasons = ("there is no champion yet, so no comparison is possible", sane)
        return GateDecision("promote", "bootstrap", reasons, n_days=n_days, policy=numbers)
    if champion.training_key == challenger.training_key:
        reasons = (f"the challenger is the champion's own training {champion.training_key}",)
        return GateDecision("keep", "unchanged", reasons, gain=0.0, n_days=n_days, policy=numbers)
    age = champion_age_days(champion, challenger, trading_days)
    difference = paired_difference(challenger.rank_ic, champion.rank_ic)
    if len(difference) < max(2, policy.min_test_days):
        reasons = (f"both models have a rank IC on {len(difference)} days only, {policy.min_test_days} are needed",)
        return GateDecision(
            "keep", "not_comparable", reasons, n_days=len(difference), champion_age_days=age, policy=numbers
        )
    return _compare(newey_west_mean(difference), age, policy)


def paired_difference(challenger: pd.Series, champion: pd.Series) -> pd.Series:
    """Challenger minus champion on the days on which both have a value, in time order."""
    return (challenger - champion).dropna().sort_index()


def champion_age_days(
    champion: CandidateEvidence, challenger: CandidateEvidence, trading_days: pd.DatetimeIndex | None = None
) -> int:
    """Trading days from the champion's last training date to the challenger's; 0 when it is not the older one."""
    first, last = champion.last_training_date, challenger.last_training_date
    if trading_days is None:
        return max(0, int(np.busday_count(first, last)))
    inside = (trading_days > pd.Timestamp(first)) & (trading_days <= pd.Timestamp(last))
    return int(inside.sum())


def _failed_sanity_check(challenger: CandidateEvidence, policy: GateSettings) -> GateDecision | None:
    n_days = int(challenger.rank_ic.notna().sum())
    checks = {
        "leak_certificate": (challenger.uncertified is None, challenger.uncertified or ""),
        "test_days": (
            n_days >= policy.min_test_days,
            f"the test segment has {n_days} days with a rank IC, {policy.min_test_days} are needed; "
            "widen the test segment",
        ),
        "coverage": (
            challenger.coverage >= policy.min_coverage,
            f"{challenger.coverage:.1%} of the test rows have a finite score, {policy.min_coverage:.1%} are needed; "
            "see which features are missing",
        ),
        "constant_scores": (
            challenger.constant_days_share <= policy.max_constant_days_share,
            f"all scores are the same on {challenger.constant_days_share:.1%} of the days, "
            f"at most {policy.max_constant_days_share:.1%} may be; the model learned nothing",
        ),
    }
    # Written as "not passed", so that a NaN fails.
    failed = {rule: reason for rule, (passed, reason) in checks.items() if not passed}
    if not failed:
        return None
    return GateDecision("reject", next(iter(failed)), tuple(failed.values()), n_days=n_days, policy=policy.model_dump())


def _compare(test: MeanTest, age: int, policy: GateSettings) -> GateDecision:
    lower = test.lower_bound(policy.alpha)
    gain = f"mean daily rank IC changes by {test.mean:+.5f} over {test.n} days"
    superior = test.mean > 0 and test.mean >= policy.min_gain and test.p_one_sided <= policy.alpha
    stale = age > policy.max_champion_age_days
    not_worse = lower >= -policy.non_inferiority_margin
    level = f"one-sided p {test.p_one_sided:.4f} against alpha {policy.alpha}, least gain {policy.min_gain}"
    bound = f"the gain's lower bound {lower:+.5f} against the margin {-policy.non_inferiority_margin:+.5f}"
    ages = f"the champion's training data are {age} trading days older, the limit is {policy.max_champion_age_days}"
    outcome: Outcome
    reasons: tuple[str, ...]
    if superior:
        outcome, rule, reasons = "promote", "superiority", (gain, level)
    elif stale and not_worse:
        outcome, rule, reasons = "promote", "refresh", (gain, ages, bound)
    else:
        outcome, rule, reasons = "keep", "no_proven_gain", (gain, level, ages, bound)
    return GateDecision(
        decision=outcome,
        rule=rule,
        reasons=reasons,
        gain=test.mean,
        p_value=test.p_one_sided,
        lower_bound=lower,
        n_days=test.n,
        champion_age_days=age,
        policy=policy.model_dump(),
    )
