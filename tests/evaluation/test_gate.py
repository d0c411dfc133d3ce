"""The gate's rules, one by one, and their error rates by simulation."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from mlops_tasks.config import GateSettings
from mlops_tasks.evaluation.backtest_overfitting import search_evidence
from mlops_tasks.evaluation.gate import (
    CandidateEvidence,
    Champion,
    GateVerdict,
    evidence,
)
from mlops_tasks.evaluation.gate import should_promote as decide
from mlops_tasks.evaluation.looks import Look, LookSubject, Wait
from mlops_tasks.evaluation.seed_noise import seed_band
from mlops_tasks.evaluation.significance import cosine_mean
from tests.evaluation.searches import Search, best_of

DAYS = pd.bdate_range("2023-01-02", periods=400, name="datetime")
POLICY = GateSettings()
TODAY = date(2024, 7, 12)
FIRST = Look(LookSubject("new", TODAY, 1), "gain", 1, 12, 0.05 / 12, 0.05 / 12, 0.05 * 11 / 12, TODAY)
WIDE = replace(FIRST, level=0.1)
SKILL = replace(FIRST, kind="skill")
WAIT = Wait(date(2024, 7, 1), 12, date(2024, 7, 30), 0.0125, 0.0375)


def should_promote(
    challenger: CandidateEvidence,
    champion: CandidateEvidence | None,
    policy: GateSettings = POLICY,
    look: Look | Wait | None = None,
    age: int | None = 0,
) -> GateVerdict:
    """The decision against a champion that is its own anchor, on a year's first look where none is given."""
    if champion is None:
        return decide(challenger, None, policy, look or SKILL)
    return decide(challenger, Champion(champion.training_key, champion, age_days=age), policy, look or FIRST)


def candidate(ic: np.ndarray | list[float], key: str = "new", **changes: object) -> CandidateEvidence:
    """Evidence with a healthy model's numbers."""
    values = {"coverage": 1.0, "constant_days_share": 0.0}
    return CandidateEvidence(training_key=key, rank_ic=pd.Series(ic, DAYS[: len(ic)]), **(values | changes))


def noise(n: int, seed: int, rho: float = 0.0, scale: float = 0.1) -> np.ndarray:
    """An AR(1) with the standard deviation that daily rank ICs have."""
    shocks = np.random.default_rng(seed).normal(size=n + 100)
    return lfilter([np.sqrt(1 - rho**2) * scale], [1.0, -rho], shocks)[100:]


BASE = noise(120, 0)


@pytest.mark.parametrize(
    ("challenger", "champion", "decision", "rule"),
    [
        (candidate(BASE + 0.05), None, "promote", "bootstrap"),
        (candidate(BASE), None, "promote", "provisional"),
        (candidate(BASE[:100] + 1), None, "promote", "provisional"),
        (candidate(BASE - 0.05), None, "reject", "negative_skill"),
        (candidate(BASE[:10]), None, "reject", "test_days"),
        (candidate(BASE, uncertified="no certificate"), None, "reject", "leak_certificate"),
        (candidate(BASE + 1, uncertified="no certificate"), candidate(BASE, "old"), "reject", "leak_certificate"),
        (candidate(BASE + 1), candidate(BASE, "old", uncertified="no certificate"), "promote", "superiority"),
        (candidate(BASE, coverage=0.9), None, "reject", "coverage"),
        (candidate(BASE, coverage=float("nan")), None, "reject", "coverage"),
        (candidate(BASE, constant_days_share=0.5), None, "reject", "constant_scores"),
        (candidate(BASE + 1, coverage=0.1), candidate(BASE, "old"), "reject", "coverage"),
        (candidate(BASE, "same"), candidate(BASE, "same"), "keep", "unchanged"),
        (candidate(BASE), candidate(BASE[:5], "old"), "keep", "not_comparable"),
        (candidate(BASE + 0.02 + noise(120, 1, scale=0.02)), candidate(BASE, "old"), "promote", "superiority"),
        (candidate(BASE), candidate(BASE, "old"), "keep", "no_proven_gain"),
        (candidate(BASE - 0.02), candidate(BASE, "old"), "keep", "no_proven_gain"),
    ],
)
def test_each_rule(challenger: CandidateEvidence, champion: CandidateEvidence | None, decision: str, rule: str) -> None:
    """Each rule decides its own case, with a reason, as plain JSON."""
    result = should_promote(challenger, champion)
    assert (result.decision, result.rule) == (decision, rule)
    assert result.promotes == (decision == "promote") and all(result.reasons)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["policy"]["alpha"] == POLICY.alpha
    took = rule in ("bootstrap", "provisional", "superiority", "no_proven_gain")
    assert (content["look"] is None) == (not took)
    if took and champion is not None:
        assert result.look == FIRST and "look 1 of 12" in result.reasons[-1] and "0.0458 left" in result.reasons[-1]


@pytest.mark.parametrize(
    ("gain", "age", "rule"),
    [(0.0, 21, "refresh"), (0.0, None, "refresh"), (0.0, 20, "no_proven_gain"), (-0.02, 200, "no_proven_gain")],
)
def test_a_champion_that_has_served_for_a_while_is_refreshed(gain: float, age: int | None, rule: str) -> None:
    """From an age of 21 market days on, or of an unknown age, not being worse is enough."""
    assert should_promote(candidate(BASE + gain), candidate(BASE, "old"), age=age).rule == rule


def test_between_looks_the_champion_stays_and_sanity_is_checked() -> None:
    """Whatever the gain, nothing is promoted, and the reason says when the next look is; no look is taken."""
    result = decide(candidate(BASE + 1), Champion("old"), POLICY, WAIT)
    assert (result.decision, result.rule, result.look, result.wait) == ("keep", "between_looks", None, WAIT)
    assert "due in 12 market days, about 2024-07-30" in result.reasons[0] and "0.0125" in result.reasons[0]
    assert decide(candidate(BASE + 1, coverage=0.1), Champion("old"), POLICY, WAIT).rule == "coverage"
    assert decide(candidate(BASE, "old"), Champion("old"), POLICY, WAIT).rule == "unchanged"


def test_nobody_has_to_beat_a_provisional_model() -> None:
    """It is replaced on a look by whatever is sane, proven or not, and stays between the looks."""
    provisional = Champion("old", provisional=True)
    for look, ic, expected in (
        (SKILL, BASE + 0.05, "bootstrap"),
        (SKILL, BASE, "provisional"),
        (SKILL, BASE - 0.05, "negative_skill"),
        (WAIT, BASE + 0.05, "between_looks"),
        (WAIT, BASE - 0.05, "negative_skill"),
    ):
        assert decide(candidate(ic), provisional, POLICY, look).rule == expected
    assert decide(candidate(BASE + 0.05), None, POLICY, WAIT).rule == "provisional"


def test_of_noise_few_first_models_are_proven_or_rejected() -> None:
    """Without skill one in 240 is proven on a look, one in twenty rejected; the others may serve as provisional."""
    rules = [should_promote(candidate(noise(150, seed, 0.3)), None).rule for seed in range(400)]
    shares = {rule: rules.count(rule) / len(rules) for rule in ("bootstrap", "negative_skill", "provisional")}
    assert sum(shares.values()) == 1
    assert shares["bootstrap"] <= 0.015 and shares["negative_skill"] <= 0.08


def test_a_proven_gain_below_the_least_gain_is_not_enough() -> None:
    """`min_gain` holds also where the gain is beyond doubt."""
    better = candidate(BASE + 0.01 + noise(120, 1, scale=0.001))
    assert should_promote(better, candidate(BASE, "old"), GateSettings(min_gain=0.008)).rule == "superiority"
    assert should_promote(better, candidate(BASE, "old"), GateSettings(min_gain=0.02)).rule == "no_proven_gain"


def test_all_failed_checks_are_named() -> None:
    """A challenger that fails two checks gets two reasons."""
    result = should_promote(candidate(BASE[:3], coverage=0.0), None, POLICY)
    assert len(result.reasons) == 2 and "20 are needed" in result.reasons[0] and "95.0%" in result.reasons[1]


series = st.lists(st.floats(-1, 1), min_size=20, max_size=60)


@settings(max_examples=150)
@given(series, st.floats(1e-6, 0.5), st.floats(0.01, 0.99), st.integers(0, 40))
def test_a_strictly_worse_model_is_never_superior(ic: list[float], worse: float, level: float, age: int) -> None:
    """Lower by any amount on every day, at any level: `superiority` does not apply."""
    look = replace(FIRST, level=level)
    result = should_promote(candidate(np.array(ic) - worse), candidate(ic, "old"), look=look, age=age)
    assert result.rule != "superiority"


@settings(max_examples=80)
@given(series, series, st.integers(0, 300))
def test_the_decision_is_antisymmetric(a: list[float], b: list[float], shift: int) -> None:
    """Two models are never each superior to the other, and the gain turns its sign with the roles."""
    n = min(len(a), len(b))
    first, second = candidate(np.array(a[:n]), "a"), candidate(np.array(b[:n]), "b")
    one, other = should_promote(first, second, POLICY), should_promote(second, first, POLICY)
    assert {one.rule, other.rule} != {"superiority"}
    assert one.gain == pytest.approx(-(other.gain or 0.0), abs=1e-15)


@pytest.mark.parametrize(("n", "rho"), [(60, 0.0), (250, 0.0), (120, 0.4), (250, 0.7)])
def test_equal_models_are_rarely_promoted(n: int, rho: float) -> None:
    """Two equally good models: superiority errs at about the look's level, also when days are autocorrelated."""
    trials = 500
    wins = 0
    for seed in range(trials):
        champion = candidate(noise(n, 2 * seed, rho), "old")
        wins += should_promote(candidate(noise(n, 2 * seed + 1, rho)), champion, look=WIDE).rule == "superiority"
    standard_error = np.sqrt(WIDE.level * (1 - WIDE.level) / trials)
    assert wins / trials <= WIDE.level + 2 * standard_error


def test_a_real_gain_is_found() -> None:
    """A gain of a third of the daily spread over 250 days is promoted nearly always at a level of a tenth."""
    found = [
        should_promote(candidate(noise(250, s) + 0.03), candidate(noise(250, s + 500), "old"), look=WIDE).promotes
        for s in range(200)
    ]
    assert np.mean(found) > 0.95


def test_evidence_counts_uncovered_rows_and_constant_days() -> None:
    """Rows without a score lower the coverage; days of equal scores are counted; the rank IC is that of the scores."""
    index = pd.MultiIndex.from_product([DAYS[:4], list("ABCDE")], names=["datetime", "instrument"])
    label = pd.Series(np.tile([1.0, 2, 3, 4, 5], 4), index)
    score = label.copy()
    score[index.get_level_values(0) == DAYS[1]] = 7.0
    score[(DAYS[2], "A")] = np.nan
    found = evidence("k", score.drop((DAYS[3], "B")), label)
    assert found.coverage == 18 / 20 and found.constant_days_share == 0.25
    np.testing.assert_allclose(found.rank_ic, [1, np.nan, 1, 1])
    assert evidence("k", score[:0], label).constant_days_share == 1.0


def searched(search: Search, seed: int, champion: CandidateEvidence | None = None) -> GateVerdict:
    """The gate on the trial that was best on validation, its test days drawn with the skill that it truly has."""
    trials = search.draw(seed)
    best = int(trials.mean().to_numpy().argmax())
    found = search_evidence(trials[best], trials, search.trials)
    truth = np.broadcast_to(search.skill, search.trials)[best]
    test = noise(200, seed + 50_000) + truth
    challenger = candidate(test, studies=("s",), search=found)
    return should_promote(challenger, champion, look=None if champion is None else WIDE, age=300)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("champion", [None, candidate(noise(200, 7), "old")])
def test_the_best_of_noise_is_refused(correlation: float, champion: CandidateEvidence | None) -> None:
    """Without skill at most one study in twenty gets its best trial promoted, as the first or for an old champion."""
    studies = 200
    promoted = [searched(Search(30, 80, correlation), seed, champion).promotes for seed in range(studies)]
    assert np.mean(promoted) <= 0.05


BETTER = Search(30, 107, skill=np.linspace(0.0, 0.06, 30))
"""Trials from no skill to a mean rank IC of 0.06. True differences between them widen their spread, which the deflation
takes for luck."""


def test_a_truly_better_trial_is_promoted() -> None:
    """The best trial is promoted, and beats a champion with defaults, in most of 100 searches."""
    defaults = candidate(noise(200, 7) + 0.005, "old")
    assert np.mean([searched(BETTER, seed).promotes for seed in range(100)]) > 0.75
    decisions = [searched(BETTER, seed, defaults) for seed in range(100)]
    assert np.mean([each.rule == "superiority" for each in decisions]) > 0.75


@pytest.mark.slow
def test_how_often_a_truly_better_trial_is_promoted() -> None:
    """In 85% of 300 searches, within two standard errors."""
    assert np.mean([searched(BETTER, seed).promotes for seed in range(300)]) == pytest.approx(0.85, abs=0.042)


def test_a_search_that_does_not_last_is_rejected() -> None:
    """Each rule for searched challengers decides its case, and the decision holds the numbers."""
    drawn = Search(20, 120).draw(1)
    lucky = search_evidence(best_of(drawn), drawn, 20)
    skilled = search_evidence(best_of(drawn) + 0.1, drawn + 0.1, 20)
    for found, rule in (
        (None, "unknown_trials"),
        (lucky, "deflated_sharpe_ratio"),
        (replace(skilled, overfitting_probability=0.7), "backtest_overfitting"),
        (replace(skilled, loss_probability=0.7), "backtest_overfitting"),
        (replace(skilled, overfitting_probability=None, loss_probability=None), "bootstrap"),
    ):
        result = should_promote(candidate(BASE + 0.1, studies=("s",), search=found), None, POLICY)
        assert (result.rule, result.promotes) == (rule, rule == "bootstrap")
        content = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert content["search"] == (None if found is None else found.to_json())
    own = candidate(BASE, "same", studies=("s",), search=lucky)
    assert should_promote(own, own, POLICY).rule == "unchanged"
    worthless = candidate(-np.abs(BASE), studies=("s",), search=replace(skilled, overfitting_probability=0.1))
    assert should_promote(worthless, None, POLICY).rule == "negative_skill"


@pytest.mark.parametrize("gain", [0.5, 0.0, -0.5])
def test_a_fit_in_doubt_is_a_warning_and_decides_nothing(gain: float) -> None:
    """Whatever is decided, the last reason says what is thought of the challenger's training; of the champion's not."""
    old = candidate(BASE, "old", fit_warning="underfitting: long ago")
    plain = should_promote(candidate(BASE + gain), old, POLICY)
    warned = should_promote(candidate(BASE + gain, fit_warning="overfitting: gap 30%"), old, POLICY)
    assert warned.reasons == (*plain.reasons, "warning: overfitting: gap 30%")
    assert replace(warned, reasons=plain.reasons) == plain
    rejected = should_promote(candidate(BASE[:3], fit_warning="overfitting: gap 30%"), None, POLICY)
    assert rejected.rule == "test_days" and rejected.reasons[-1] == "warning: overfitting: gap 30%"


def test_seed_noise_that_is_known_of_one_model_alone_counts_alone() -> None:
    """Whose seeds were never compared adds nothing; with neither known the decision is the plain test's."""
    better, old = candidate(BASE + 0.01 + noise(120, 1, scale=0.01)), candidate(BASE, "old")
    band = seed_band([0.028, 0.03, 0.032])
    ours = should_promote(replace(better, seed_noise=band), old, POLICY)
    theirs = should_promote(better, replace(old, seed_noise=band), POLICY)
    both = should_promote(replace(better, seed_noise=band), replace(old, seed_noise=band), POLICY)
    plain = should_promote(better, old, POLICY)
    assert ours.seed_noise == theirs.seed_noise == pytest.approx(0.002)
    assert both.seed_noise == pytest.approx(0.002 * np.sqrt(2))
    assert ours.p_value == theirs.p_value > plain.p_value
    assert plain.seed_noise is None and plain.p_value == cosine_mean(better.rank_ic - old.rank_ic).p_one_sided


def test_a_gain_must_exceed_the_seed_noise() -> None:
    """A gain proven day by day is none where seeds of one model differ as much; small noise changes nothing."""
    better, old = candidate(BASE + 0.01 + noise(120, 1, scale=0.01)), candidate(BASE, "old")
    plain = should_promote(better, old, POLICY)
    assert (plain.rule, plain.seed_noise) == ("superiority", None)
    for deviation, rule in ((0.01, "no_proven_gain"), (0.0005, "superiority"), (0.0, "superiority")):
        band = seed_band([0.03 - deviation, 0.03, 0.03 + deviation])
        result = should_promote(replace(better, seed_noise=band), replace(old, seed_noise=band), POLICY)
        assert result.rule == rule
        assert result.seed_noise == pytest.approx(np.sqrt(2) * deviation)
        assert result.lower_bound == plain.lower_bound
