"""The promotion gate: pure policy. It knows no registry; the caller brings the evidence and acts on the decision.

The first rule that applies decides:

1. `leak_certificate`, `test_days`, `coverage`, `constant_scores`: a challenger that fails a sanity check is rejected.
2. `unchanged`: the challenger is the champion's own training; keep.
3. `unknown_trials`, `deflated_sharpe_ratio`, `backtest_overfitting`: a challenger that was chosen from the trials of a
   search is rejected if those are unknown, if its deflated Sharpe ratio on the validation days is below
   `deflated_confidence`, or if the best trial of half of the days is, on the other half, below the median or below
   zero with a probability above `max_overfitting_probability`.
4. Without a champion that has proven itself:
   `negative_skill`: the mean daily rank IC is below zero with a one-sided p <= `alpha`; reject.
   `bootstrap`: on a look it is above zero with a one-sided p up to the look's level on at least `min_skill_days`;
   promote.
   `between_looks`: another model serves as provisional already, and no look is due; keep.
   `provisional`: promote, to serve without proof: a challenger does not have to beat it. Not on the look of an
   experiment, whose winner is kept by `no_proven_gain`.
5. `between_looks`: no look is due (`evaluation/looks.py`); keep, and say when the next one is.
6. `not_comparable`: fewer common days than `min_test_days`; keep.
7. `superiority`: mean gain of daily rank IC above zero, at least `min_gain`, with a one-sided p up to the look's level,
   where the standard error includes the seed noise of both models as far as it is known; promote.
8. `refresh`: the champion has served for `look_every_days` market days, and the one-sided lower bound of the gain at
   the look's level is at least -`non_inferiority_margin`; promote. Not on the look of an experiment: how often a worse
   model may serve was bounded for one refresh a month at most.
9. `no_proven_gain`: keep.

A challenger is compared with the anchor: the last champion that was promoted by superiority, as the first, or by a
person. Models promoted by a refresh since then stand for the anchor on newer bars. To be no worse than one of them
would be no bound, because every refresh may lose the margin again.

A challenger whose training over- or underfits is decided on like any other, because the test days show what it can do.
The last of the reasons is then a warning. In rule 7, unknown seed noise of either model counts as none; a table of
models with several seeds (`models table`) measures it.

Luck is taken out in rule 3 and not in rule 7, because a search compares its trials on the validation segment: results
there are partly luck, and are deflated by the number of trials. Nothing was chosen on the test segment, so the plain
test holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.config import GateSettings
from mlops_tasks.evaluation.backtest_overfitting import SearchEvidence
from mlops_tasks.evaluation.ic import constant_days_share, daily_rank_ic
from mlops_tasks.evaluation.looks import Look, Wait
from mlops_tasks.evaluation.seed_noise import SeedBand
from mlops_tasks.evaluation.significance import MeanTest, cosine_mean
from mlops_tasks.files import finite_or_none
from mlops_tasks.states import Outcome

GatePolicy = GateSettings
"""The gate's numbers are settings."""

PROVISIONAL = "provisional"
"""The rule by which a model without proven skill serves."""
SUPERIORITY, REFRESH, BOOTSTRAP, BETWEEN_LOOKS = "superiority", "refresh", "bootstrap", "between_looks"
NO_PROVEN_GAIN = "no_proven_gain"


@dataclass(frozen=True)
class CandidateEvidence:
    """What the gate knows about one model, measured on the challenger's test dates."""

    training_key: str
    rank_ic: pd.Series
    """Daily rank IC by datetime, both models on the same dates."""
    coverage: float
    """Share of the universe's rows in the test segment with a finite score."""
    constant_days_share: float
    """Share of days on which all scores are the same."""
    uncertified: str | None = None
    """Why no leak certificate covers the learning data, and what to do; None: one does."""
    studies: tuple[str, ...] = ()
    """The searches that chose it."""
    search: SearchEvidence | None = None
    """What the search's trials show on the days that were searched; None: no search, or its trials are unknown."""
    seed_noise: SeedBand | None = None
    """Mean rank IC on test days over several seeds of the configuration, where they were trained."""
    fit_warning: str | None = None
    """Why its training counts as over- or underfitting; None: it does not, or nothing is known."""


@dataclass(frozen=True)
class Champion:
    """What serves, and what a challenger has to beat."""

    training_key: str
    anchor: CandidateEvidence | None = None
    """On the challenger's test dates; None: not measured, because no look is due or challengers need not beat it."""
    provisional: bool = False
    """It has proven no skill, so challengers need not beat it."""
    age_days: int | None = None
    """Market days since the newest bars with which it was promoted; None: unknown, and it counts as old."""


@dataclass(frozen=True)
class GateVerdict:
    """What was decided, by which rule, and the numbers behind it."""

    decision: Outcome
    rule: str
    reasons: tuple[str, ...]
    gain: float | None = None
    """Mean daily rank IC of the challenger minus the champion's."""
    p_value: float | None = None
    """One-sided, against gain > 0, autocorrelation-robust."""
    lower_bound: float | None = None
    """One-sided lower bound of the gain at the look's level."""
    n_days: int = 0
    champion_age_days: int | None = None
    """Market days since the newest bars with which the serving model was promoted."""
    look: Look | None = None
    """The look that this decision took; None: it took none."""
    wait: Wait | None = None
    """How long no look is due; None: this was a look, or the decision did not depend on one."""
    anchor_version: int | None = None
    """Registered version that the challenger was compared with."""
    seed_noise: float | None = None
    """Standard deviation of the gain between seeds that `p_value` allows for; None: unknown."""
    search: dict[str, Any] | None = None
    """`SearchEvidence.to_json()` of the challenger."""
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def promotes(self) -> bool:
        """Whether the challenger becomes the champion."""
        return self.decision is Outcome.PROMOTE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become None."""
        names = ("gain", "p_value", "lower_bound", "seed_noise")
        return {
            "decision": self.decision.value,
            "rule": self.rule,
            "reasons": list(self.reasons),
            "n_days": self.n_days,
            "champion_age_days": self.champion_age_days,
            "look": None if self.look is None else self.look.to_json(),
            "wait": None if self.wait is None else self.wait.to_json(),
            "anchor_version": self.anchor_version,
            "search": self.search,
            "policy": self.policy,
            **{name: finite_or_none(getattr(self, name)) for name in names},
        }


def evidence(training_key: str, score: pd.Series, label: pd.Series) -> CandidateEvidence:
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
    )


def should_promote(
    challenger: CandidateEvidence, champion: Champion | None, policy: GateSettings, look: Look | Wait
) -> GateVerdict:
    """Decide whether `challenger` replaces `champion`; see the module's rules.

    Parameters
    ----------
    challenger, champion
        Evidence on the same dates; None when nothing serves. Days on which either rank IC is NaN are left out.
    policy
        The gate's numbers.
    look
        `looks.plan_look` of this challenger against this champion: of its gain, or of its skill where there is no
        champion or a provisional one.
    """
    decided = _decide(challenger, champion, policy, look)
    search = None if challenger.search is None else challenger.search.to_json()
    warned = () if challenger.fit_warning is None else (f"warning: {challenger.fit_warning}",)
    return replace(decided, policy=policy.model_dump(), search=search, reasons=(*decided.reasons, *warned))


def _decide(
    challenger: CandidateEvidence, champion: Champion | None, policy: GateSettings, look: Look | Wait
) -> GateVerdict:
    failed = _failed_sanity_check(challenger, policy)
    if failed is not None:
        return failed
    n_days = int(challenger.rank_ic.notna().sum())
    reasons: tuple[str, ...]
    if champion is not None and challenger.training_key in _own_trainings(champion):
        reasons = (f"the challenger is the champion's own training {challenger.training_key}",)
        return GateVerdict(Outcome.KEEP, "unchanged", reasons, gain=0.0, n_days=n_days)
    if challenger.studies:
        lucky = _failed_search(challenger, policy)
        if lucky is not None:
            return lucky
    if champion is None or champion.provisional:
        return _bootstrap(challenger, champion is not None, policy, look)
    if isinstance(look, Wait):
        return _waiting(look, n_days)
    return _challenge(challenger, champion, policy, look)


def _challenge(challenger: CandidateEvidence, champion: Champion, policy: GateSettings, look: Look) -> GateVerdict:
    if champion.anchor is None:
        raise ValueError("a look at a gain needs the rank ICs of the model to beat; give the champion's anchor")
    difference = paired_difference(challenger.rank_ic, champion.anchor.rank_ic)
    if len(difference) < max(2, policy.min_test_days):
        reasons = (f"both models have a rank IC on {len(difference)} days, but {policy.min_test_days} are needed",)
        return GateVerdict(
            Outcome.KEEP, "not_comparable", reasons, n_days=len(difference), champion_age_days=champion.age_days
        )
    noise = [each.seed_noise for each in (challenger, champion.anchor) if each.seed_noise is not None]
    return _compare(cosine_mean(difference), noise, champion.age_days, policy, look)


def _own_trainings(champion: Champion) -> set[str]:
    return {champion.training_key} | ({champion.anchor.training_key} if champion.anchor is not None else set())


def _waiting(wait: Wait, n_days: int) -> GateVerdict:
    return GateVerdict(Outcome.KEEP, BETWEEN_LOOKS, (wait.said(),), n_days=n_days, wait=wait)


def paired_difference(challenger: pd.Series, champion: pd.Series) -> pd.Series:
    """Challenger minus champion on the days on which both have a value, in time order."""
    return (challenger - champion).dropna().sort_index()


def _failed_sanity_check(challenger: CandidateEvidence, policy: GateSettings) -> GateVerdict | None:
    n_days = int(challenger.rank_ic.notna().sum())
    checks = {
        "leak_certificate": (challenger.uncertified is None, challenger.uncertified or ""),
        "test_days": (
            n_days >= policy.min_test_days,
            f"the test segment has {n_days} days with a rank IC, but {policy.min_test_days} are needed; "
            "widen the test segment",
        ),
        "coverage": (
            challenger.coverage >= policy.min_coverage,
            f"{challenger.coverage:.1%} of the test rows have a finite score, but {policy.min_coverage:.1%} are "
            "needed; see which features are missing",
        ),
        "constant_scores": (
            challenger.constant_days_share <= policy.max_constant_days_share,
            f"all scores are the same on {challenger.constant_days_share:.1%} of the days, "
            f"but at most {policy.max_constant_days_share:.1%} are allowed; the model learned nothing",
        ),
    }
    return _first_failed(checks, n_days)


def _failed_search(challenger: CandidateEvidence, policy: GateSettings) -> GateVerdict | None:
    n_days, search = int(challenger.rank_ic.notna().sum()), challenger.search
    if search is None:
        reason = (
            f"the challenger was chosen by study {', '.join(challenger.studies)}, but no trial of it with rank ICs on "
            "its validation days is recorded; run the stage tuning.finish_study, which records a study's trials"
        )
        return GateVerdict(Outcome.REJECT, "unknown_trials", (reason,), n_days=n_days)
    deflated, limit = search.deflated, policy.max_overfitting_probability
    below = {"the median": search.overfitting_probability, "zero": search.loss_probability}
    known = {name: probability for name, probability in below.items() if probability is not None}
    checks = {
        "deflated_sharpe_ratio": (
            deflated.probability >= policy.deflated_confidence,
            f"on {deflated.n_days} validation days its rank ICIR is {deflated.sharpe:.4f}, and the best of "
            f"{deflated.trials} trials (worth {deflated.effective_trials:.1f} independent ones) reaches "
            f"{deflated.expected_maximum:.4f} by luck: deflated Sharpe ratio {deflated.probability:.4f}, "
            f"but {policy.deflated_confidence} is needed; search less, or on more days",
        ),
        "backtest_overfitting": (
            all(probability <= limit for probability in known.values()),
            "the best trial on half of the validation days is on the other half below "
            + " and below ".join(f"{name} with probability {value:.4f}" for name, value in known.items())
            + f", but at most {limit} is allowed; the search found nothing that lasts",
        ),
    }
    return _first_failed(checks, n_days)


def _first_failed(checks: Mapping[str, tuple[bool, str]], n_days: int) -> GateVerdict | None:
    # Conditions are those of passing, so that a NaN fails.
    failed = {rule: reason for rule, (passed, reason) in checks.items() if not passed}
    if not failed:
        return None
    return GateVerdict(Outcome.REJECT, next(iter(failed)), tuple(failed.values()), n_days=n_days)


def _bootstrap(challenger: CandidateEvidence, serves: bool, policy: GateSettings, look: Look | Wait) -> GateVerdict:
    """`serves`: whether a provisional model is in service."""
    test_days = challenger.rank_ic.dropna()
    test, n_days = cosine_mean(test_days), len(test_days)
    below = 1 - test.p_one_sided
    if test.mean < 0 and below <= policy.alpha:
        reason = f"mean daily rank IC {test.mean:+.5f} is below zero: one-sided p {below:.4f} against {policy.alpha}"
        return GateVerdict(Outcome.REJECT, "negative_skill", (reason,), p_value=test.p_one_sided, n_days=n_days)
    if serves and isinstance(look, Wait):
        return _waiting(look, n_days)
    enough = n_days >= policy.min_skill_days
    proven = isinstance(look, Look) and enough and test.mean > 0 and test.p_one_sided <= look.level
    sane = f"coverage {challenger.coverage:.1%} and {n_days} test days pass the sanity checks"
    against = f"the look's level {look.level:.4f}" if isinstance(look, Look) else "no level, for no look is due"
    level = (
        f"mean daily rank IC {test.mean:+.5f} on the test days: one-sided p {test.p_one_sided:.4f} against {against}; "
        f"{policy.min_skill_days} days are needed for a proof of skill"
    )
    reasons = ["there is no champion to be compared with", sane, level, look.said()]
    if not proven and isinstance(look, Look) and look.subject.experiment:
        reasons.append("an experiment lets no model serve without proof")
        return GateVerdict(
            Outcome.KEEP, NO_PROVEN_GAIN, tuple(reasons), p_value=test.p_one_sided, n_days=n_days, look=look
        )
    if not proven:
        reasons.append("it may serve, and is provisional: nothing shows that its scores are better than chance")
    return GateVerdict(
        decision=Outcome.PROMOTE,
        rule=BOOTSTRAP if proven else PROVISIONAL,
        reasons=tuple(reasons),
        p_value=test.p_one_sided,
        n_days=n_days,
        look=look if isinstance(look, Look) else None,
        wait=look if isinstance(look, Wait) else None,
    )


def _compare(
    plain: MeanTest, noise: Sequence[SeedBand], age: int | None, policy: GateSettings, look: Look
) -> GateVerdict:
    parts = [(band.variance, band.degrees_of_freedom) for band in noise]
    test, lower = plain.widened(parts), plain.lower_bound(look.level)
    gain = f"mean daily rank IC changes by {test.mean:+.5f} over {test.n} days"
    superior = test.mean > 0 and test.mean >= policy.min_gain and test.p_one_sided <= look.level
    stale = age is None or age >= policy.look_every_days
    not_worse = lower >= -policy.non_inferiority_margin
    level = (
        f"one-sided p {test.p_one_sided:.4f} against the look's level {look.level:.4f}, least gain {policy.min_gain}"
    )
    deviation = float(np.sqrt(sum(variance for variance, _ in parts))) if parts else None
    if deviation is not None:
        level += f"; between seeds the gain has a standard deviation of {deviation:.5f}"
    bound = f"the gain's lower bound {lower:+.5f} against the margin {-policy.non_inferiority_margin:+.5f}"
    since = "an unknown number of" if age is None else str(age)
    ages = f"the champion has served for {since} market days, a refresh needs {policy.look_every_days}"
    outcome: Outcome
    reasons: tuple[str, ...]
    if superior:
        outcome, rule, reasons = Outcome.PROMOTE, SUPERIORITY, (gain, level)
    elif stale and not_worse and not look.subject.experiment:
        outcome, rule, reasons = Outcome.PROMOTE, REFRESH, (gain, ages, bound)
    elif look.subject.experiment:
        outcome, rule, reasons = Outcome.KEEP, NO_PROVEN_GAIN, (gain, level)
    else:
        outcome, rule, reasons = Outcome.KEEP, NO_PROVEN_GAIN, (gain, level, ages, bound)
    return GateVerdict(
        decision=outcome,
        rule=rule,
        reasons=(*reasons, look.said()),
        gain=test.mean,
        p_value=test.p_one_sided,
        lower_bound=lower,
        n_days=test.n,
        champion_age_days=age,
        seed_noise=deviation,
        look=look,
    )
