"""Actions, factors and recycled tickers are judged by size and signs: each case is planted, so its truth is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRICES, VOLUME
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.rules import Rules, Validation, validate
from tests.data.market import parsed_frame
from tests.data.planted_market import make_market
from tests.data.planted_truth import judge, render

RULES = Rules(load_suites())
DAYS, AT = 200, 120


def walk(
    names: list[str], seed: int = 0, calendar: str = "XNYS", start: str = "2021-01-04", days: int = DAYS
) -> pd.DataFrame:
    """Quiet random walks of 1.2% a day at 40, with ranges and volumes that vary; each name has `days` rows."""
    rng = np.random.default_rng(seed)
    opened = sessions(calendar, start, pd.Timestamp(start) + pd.Timedelta(days=2 * days + 30))[:days]
    parts = []
    for name in names:
        gaps, within = rng.normal(0, 0.005, days), rng.normal(0, 0.011, days)
        close = 40 * np.exp(np.cumsum(gaps + within))
        first = close / np.exp(within)
        wide = np.exp(np.abs(rng.normal(0, 0.006, (2, days))))
        parts.append(
            pd.DataFrame(
                {
                    "Date": opened,
                    "Symbol": name,
                    "Open": first,
                    "High": np.maximum(first, close) * wide[0],
                    "Low": np.minimum(first, close) / wide[1],
                    "Close": close,
                    "Volume": np.round(rng.lognormal(11, 0.35, days)),
                }
            )
        )
    return parsed_frame(pd.concat(parts, ignore_index=True))


def scale(frame: pd.DataFrame, ratio: float, at: int = AT, end: int = DAYS) -> pd.DataFrame:
    """Prices of the first name's rows at..end-1 times `ratio`, its volume by the inverse."""
    changed = frame.copy()
    changed.loc[at : end - 1, list(PRICES)] *= ratio
    changed.loc[at : end - 1, VOLUME] /= ratio
    return changed


def crash(frame: pd.DataFrame, ratio: float, at: int = AT) -> pd.DataFrame:
    """A true fall of the first name: overnight, nervous and heavily traded for days."""
    changed = scale(frame, ratio, at)
    changed.loc[at : DAYS - 1, VOLUME] *= ratio
    changed.loc[at : at + 10, VOLUME] *= 9 * np.exp(-np.arange(11) / 6)
    changed.loc[at, HIGH] *= 1.05
    changed.loc[at, LOW] *= 0.94
    nervous = np.exp(0.04 * (-1.0) ** np.arange(12))
    for name in PRICES:
        changed.loc[at + 1 : at + 12, name] *= nervous
    return changed


def broken(validation: Validation) -> dict[str, Any]:
    """Rule to the number of rows kept back, and possible actions that are only warned of."""
    warned = {rule: n for rule, n in validation.warnings.items() if rule in ("possible_action", "factor_unmatched")}
    return validation.rules | warned


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fall", [0.5, 0.69, 0.48, 0.667, 0.3])
def test_a_rounded_factor_explains_no_crash(fall: float, seed: int) -> None:
    """A factor that moves by 0.03% on the day of a true fall costs no row; the fall is warned of as a jump alone."""
    frame = crash(walk(["A"], seed), fall)
    for step in (1.0003, 1 / 1.0003):
        frame.loc[AT : DAYS - 1, FACTOR] = step
        validation = validate(frame, RULES)
        assert validation.quarantined == 0 and validation.warnings.get("unexplained_jump")


@pytest.mark.parametrize("ratio", [2, 3, 1.5, 1.25, 4 / 3, 1.8, 5, 10, 20, 0.1, 0.05, 0.2])
def test_a_rounded_factor_hides_no_split(ratio: float) -> None:
    """A split without its factor is found on its day whether the factor stays or moves by 0.03%."""
    frame = scale(walk(["A"]), 1 / ratio)
    for step in (1.0, 1.0003):
        frame.loc[AT : DAYS - 1, FACTOR] = step
        validation = validate(frame, RULES)
        assert "unadjusted_split" in validation.shortened_instruments["A"]
        found = validation.measures.instruments.iloc[0]
        assert found["split_on"] == frame[DATETIME][AT]
        assert found["split_ratio"] == pytest.approx(1 / ratio, rel=0.06)


@pytest.mark.parametrize(
    ("price", "factor"), [(0.5, 4.0), (0.5, 3.06), (1.0, 2.0), (1.0, 1.53), (0.1, 5.0), (10.0, 0.2)]
)
def test_a_factor_that_goes_too_far_is_an_error(price: float, factor: float) -> None:
    """An adjusted price that doubles, or rises by 53%, with the factor: the rows before are kept back, those from it
    on stay."""
    frame = scale(walk(["A"]), price)
    frame.loc[AT : DAYS - 1, FACTOR] = factor
    validation = validate(frame, RULES)
    assert "factor_error" in validation.shortened_instruments["A"]
    assert np.flatnonzero(~validation.accepted).tolist() == list(range(AT))
    assert validation.measures.instruments["factor_error_ratio"][0] == pytest.approx(price * factor, rel=0.06)


@pytest.mark.parametrize(("price", "factor"), [(0.5, 2.0), (0.1, 10.0), (20.0, 0.05), (0.97, 1 / 0.97), (1 / 1.8, 1.8)])
def test_a_right_factor_is_none(price: float, factor: float) -> None:
    """Splits, reverse splits, bonus issues and dividends with their factors break no rule but the fall of a factor."""
    frame = scale(walk(["A"]), price)
    frame.loc[AT : DAYS - 1, FACTOR] = factor
    validation = validate(frame, RULES)
    assert validation.quarantined == 0 and set(validation.warnings) <= {"factor_decrease"}


def a_shares(seed: int = 0, **prices: float) -> pd.DataFrame:
    return walk(["SH600123"], seed, "XSHG", **prices)  # type: ignore[arg-type]


@pytest.mark.parametrize("bonus", [1.2, 1.3, 1.8, 1.55, 2.0, 1.37])
def test_a_fall_beyond_the_limit_is_an_action(bonus: float) -> None:
    """No A-share falls so far in a day by trade, whatever the ratio and however heavy the trade."""
    frame = scale(a_shares(), 1 / bonus)
    frame.loc[AT, VOLUME] *= 9
    validation = validate(frame, RULES)
    assert validation.shortened_instruments == {"SH600123": ["unadjusted_split"]}


def test_five_days_at_the_limit_are_trade() -> None:
    """A-shares that fall by 10% a day, untraded at one price, lose no row."""
    frame = a_shares()
    level = frame[CLOSE][AT - 1] * np.cumprod([0.9] * 5)
    lasting = level[-1] / frame[CLOSE][AT + 4]
    for name in PRICES:
        frame.loc[AT : AT + 4, name] = level
        frame.loc[AT + 5 : DAYS - 1, name] *= lasting
    assert validate(frame, RULES).quarantined == 0


@pytest.mark.parametrize(
    ("bonus", "rule"), [(1.05, "possible_action"), (1.1, "possible_action"), (1.3, "unadjusted_split")]
)
def test_preclose_names_an_action(bonus: float, rule: str) -> None:
    """Where the close before is given as the exchange adjusted it, actions of 5% are named; small ones cost nothing."""
    frame = scale(a_shares(), 1 / bonus)
    frame["preclose"] = frame[CLOSE].shift()
    frame.loc[AT, "preclose"] /= bonus
    assert rule in broken(validate(frame, RULES))
    if bonus < 1.2:
        frame["preclose"] = np.nan
        assert not broken(validate(frame, RULES))


def with_preclose(frame: pd.DataFrame) -> pd.DataFrame:
    """The true close before, as the exchange gives it."""
    return frame.assign(preclose=frame[CLOSE].shift())


WRONG = {
    "close and high": ({CLOSE: 1.37, HIGH: 1.37}, ["displaced_level"]),
    "close and low": ({CLOSE: 0.7, LOW: 0.7}, ["displaced_level"]),
    "close, too high": ({CLOSE: 1.37}, ["close_not_above_high"]),
    "close, too low": ({CLOSE: 0.7}, ["close_not_below_low"]),
    "all prices": (dict.fromkeys(PRICES, 1.55), ["price_spike", "displaced_level"]),
}


@pytest.mark.parametrize("shares", [a_shares, lambda: walk(["A"])], ids=["limited", "unlimited"])
@pytest.mark.parametrize("factor", ["none", "constant", "changes before", "changes after"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_close_that_preclose_corrects_costs_its_row(wrong: str, factor: str, shares: Any) -> None:
    """The next day's preclose contradicts the close, and the price is back at once: a bad bar, and no action."""
    frame = with_preclose(shares())
    if factor == "constant":
        frame[FACTOR] = 2.5
    elif factor != "none":
        at = AT if factor == "changes before" else AT + 1
        frame = with_preclose(shares())
        frame.loc[at : DAYS - 1, [*PRICES]] /= 2.0
        frame.loc[at + 1 : DAYS - 1, "preclose"] /= 2.0
        frame.loc[at, "preclose"] /= 2.0
        frame.loc[at : DAYS - 1, FACTOR] = 2.0
    assert validate(frame, RULES).quarantined == 0
    changes, rules = WRONG[wrong]
    for name, ratio in changes.items():
        frame.loc[AT, name] *= ratio
    validation = validate(frame, RULES)
    assert np.flatnonzero(~validation.accepted).tolist() == [AT]
    assert set(validation.rules) <= set(rules) and not validation.shortened_instruments


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("at", [AT - 1, AT + 1, AT + 2])
def test_an_action_beside_a_wrong_close_is_found(wrong: str, at: int) -> None:
    """A split without its factor on the day before, the day after or two days after costs the history before it."""
    frame = with_preclose(a_shares())
    frame = scale(frame, 0.5, at)
    frame.loc[at : DAYS - 1, "preclose"] /= 2.0
    for name, ratio in WRONG[wrong][0].items():
        frame.loc[AT, name] *= ratio
    validation = validate(frame, RULES)
    assert validation.shortened_instruments == {"SH600123": ["unadjusted_split"]}
    assert validation.measures.instruments["split_on"][0] == frame[DATETIME][at]
    assert validation.accepted[at + 3 :].all()


def test_an_action_after_a_day_at_the_limit_is_found() -> None:
    """A rise that the limit of its board allows is no wrong close, though a bonus issue takes it back."""
    frame = walk(["SZ300123"], 0, "XSHG")
    frame.loc[AT : DAYS - 1, list(PRICES)] *= 1.2 * frame[CLOSE][AT - 1] / frame[CLOSE][AT]
    frame.loc[AT, [OPEN, LOW]] = frame[CLOSE][AT - 1]
    frame = scale(with_preclose(frame), 1 / 1.2, AT + 1)
    frame.loc[AT + 1 : DAYS - 1, "preclose"] /= 1.2
    validation = validate(frame, RULES)
    assert validation.shortened_instruments == {"SZ300123": ["unadjusted_split"]}
    assert np.flatnonzero(~validation.accepted).tolist() == list(range(AT + 1))


def test_after_a_slip_preclose_names_an_action_from_a_fifth_on() -> None:
    """The true close between is not known, and a day's own move is no action: a smaller one passes unnamed."""
    for bonus, broke in ((1.1, False), (1.5, True)):
        frame = scale(with_preclose(a_shares()), 1 / bonus, AT + 1)
        frame.loc[AT + 1 : DAYS - 1, "preclose"] /= bonus
        assert broken(validate(frame, RULES))
        frame.loc[AT, CLOSE] *= 1.4
        found = set(broken(validate(frame, RULES))) & {"unadjusted_split", "possible_action"}
        assert bool(found) is broke


def test_a_repeated_preclose_contradicts_no_close_whose_price_stays() -> None:
    """After a true rise of a fifth the vendor gives the preclose of the day before once more; the price does not come
    back, so the close was right."""
    frame = walk(["A"])
    frame.loc[AT : DAYS - 1, list(PRICES)] *= np.exp(0.18) * frame[CLOSE][AT - 1] / frame[CLOSE][AT]
    frame.loc[AT + 1 : DAYS - 1, list(PRICES)] *= np.exp(0.01) * frame[CLOSE][AT] / frame[CLOSE][AT + 1]
    frame = with_preclose(frame)
    frame.loc[AT + 1, "preclose"] = frame[CLOSE][AT - 1]
    assert validate(frame, RULES).quarantined == 0


@pytest.mark.parametrize(("rise", "ratio"), [(1.45, 1.5), (1.9, 2.0), (0.52, 0.5)])
def test_an_action_after_its_inverse_move_is_found(rise: float, ratio: float) -> None:
    """Where no limit says that the move was no trade, a split whose factor is lacking takes it back: no wrong close."""
    frame = walk(["A"])
    frame.loc[AT : DAYS - 1, list(PRICES)] *= rise * frame[CLOSE][AT - 1] / frame[CLOSE][AT]
    frame = scale(with_preclose(frame), 1 / ratio, AT + 1)
    frame.loc[AT + 1 : DAYS - 1, "preclose"] /= ratio
    frame["preclose"] = frame["preclose"].round(2)
    validation = validate(frame, RULES)
    assert "unadjusted_split" in validation.shortened_instruments["A"]
    assert validation.measures.instruments["split_on"][0] == frame[DATETIME][AT + 1]
    assert validation.accepted[AT + 1 :].all()


def test_two_days_at_the_limit_around_a_slip_are_trade() -> None:
    """Where the close between is a slip of the pen, two days' moves are held against two limits, and no preclose names
    an action."""
    frame = a_shares()
    frame.loc[AT : DAYS - 1, list(PRICES)] *= 1.097 * frame[CLOSE][AT - 1] / frame[CLOSE][AT]
    frame.loc[AT + 1 : DAYS - 1, list(PRICES)] *= 1.097 * frame[CLOSE][AT] / frame[CLOSE][AT + 1]
    frame = with_preclose(frame)
    assert validate(frame, RULES).quarantined == 0
    frame.loc[AT, CLOSE] *= 1.4
    validation = validate(frame, RULES)
    assert np.flatnonzero(~validation.accepted).tolist() == [AT]


def test_a_preclose_that_is_another_thing_proves_nothing() -> None:
    """A column that is not the close before on most days is passed over."""
    frame = a_shares()
    frame["preclose"] = frame[CLOSE].shift() * np.random.default_rng(1).uniform(0.5, 1.5, len(frame))
    assert not broken(validate(frame, RULES))


@pytest.mark.parametrize("late", [1, 3, -2])
@pytest.mark.parametrize("ratio", [2.0, 1.5, 0.1])
def test_a_factor_some_days_off_costs_these_days(ratio: float, late: int) -> None:
    """Of a split whose factor comes late or early only the days between are kept back."""
    frame = scale(walk(["A"]), 1 / ratio)
    frame.loc[AT + late : DAYS - 1, FACTOR] = ratio
    validation = validate(frame, RULES)
    first, end = sorted((AT, AT + late))
    assert np.flatnonzero(~validation.accepted).tolist() == list(range(first, end))
    assert set(validation.rules) <= {"displaced_level", "price_spike"}


def test_a_split_of_the_newest_days_costs_these_days() -> None:
    """A factor often comes a day late: the newest rows wait for it, and the history stays."""
    frame = scale(walk(["A"]), 0.5, DAYS - 2)
    validation = validate(frame, RULES)
    assert np.flatnonzero(~validation.accepted).tolist() == [DAYS - 2, DAYS - 1]


def test_a_halt_that_ends_elsewhere_is_trade() -> None:
    """After 60 sessions away, or 60 flat ones, a price that lies a quarter lower is no split of 5:4."""
    frame = scale(walk(["A"]), 0.78)
    away = frame.drop(index=range(AT - 60, AT)).reset_index(drop=True)
    flat = frame.copy()
    flat.loc[AT - 60 : AT - 1, list(PRICES)], flat.loc[AT - 60 : AT - 1, VOLUME] = frame[CLOSE][AT - 61], 0.0
    for halted in (away, flat):
        assert validate(halted, RULES).quarantined == 0


def test_a_price_of_few_ticks_moves_by_ticks() -> None:
    """From 2 to 3 cents and back is what such a price does."""
    frame = walk(["A"])
    cents = np.where(np.random.default_rng(2).random(DAYS) < 0.05, 0.03, 0.02)
    for name in (OPEN, CLOSE):
        frame[name] = cents
    frame[HIGH], frame[LOW] = cents, cents
    frame.loc[AT : DAYS - 1, list(PRICES)] -= 0.01
    assert validate(frame, RULES).quarantined == 0


@pytest.mark.parametrize("ratio", [100.0, 0.01, 1000.0, 0.001])
@pytest.mark.parametrize("move", [0.0, 0.15, -0.2])
def test_a_bar_in_another_unit_is_told_whatever_the_price_does_on_that_day(ratio: float, move: float) -> None:
    """A true move of a seventh on the day hides no bar of a hundred times the price, and costs nothing else."""
    frame = crash(walk(["A"]), float(np.exp(move)))
    frame.loc[AT, list(PRICES)] *= ratio
    validation = validate(frame, RULES)
    assert validation.rules["price_spike"] == 1 and np.flatnonzero(~validation.accepted).tolist() == [AT]


def long_absence(level: float, volume: float) -> pd.DataFrame:
    frame = walk(["A"], days=500, start="2018-01-02")
    frame = frame.drop(index=range(100, 400)).reset_index(drop=True)
    frame.loc[0:99, list(PRICES)] *= level
    frame.loc[0:99, VOLUME] *= volume
    return frame


@pytest.mark.parametrize(("level", "volume"), [(12.0, 1.0), (0.05, 0.2), (6.0, 25.0)])
def test_a_recycled_ticker_keeps_the_newer_company(level: float, volume: float) -> None:
    """After 300 sessions another company: its rows stay, the older one's are kept back under the rule."""
    validation = validate(long_absence(level, volume), RULES)
    assert np.flatnonzero(~validation.accepted).tolist() == list(range(100))
    assert "recycled_ticker" in validation.shortened_instruments["A"]


@pytest.mark.parametrize(("level", "volume"), [(1.0, 1.0), (0.7, 1.5), (1.5, 0.5)])
def test_a_company_that_comes_back_is_the_same(level: float, volume: float) -> None:
    """After 300 sessions a level that years of trade would explain costs nothing."""
    assert validate(long_absence(level, volume), RULES).quarantined == 0


def test_the_planted_market_is_judged_rightly() -> None:
    """A small market of four markets' habits: what the rules about actions, factors, tickers and suspensions find
    of what is visible, and that they cost no good row."""
    market = make_market(120, 5, seed=4)
    validation = validate(market.frame, RULES)
    truth = judge(market, validation)
    own = ["unadjusted_split", "factor_error", "recycled_ticker", "displaced_level", "long_suspension", "price_spike"]
    assert truth.rules.reindex(own).fillna(0)["wrong"].sum() == 0, render(truth)
    assert set(validation.fatal) == {"common_price_unit", "common_volume_unit"}
    own_kinds = ("unadjusted", "factor", "recycled", "flat", "foreign", "market", "price", "volume")
    kinds = truth.kinds[truth.kinds.index.str.startswith(own_kinds)]
    assert kinds["visible"].sum() > 20 and kinds["missed"].sum() == 0, render(truth)
    assert truth.dead_names > 10 and truth.dead_names_lost == 0
    assert market.frame[INSTRUMENT].nunique() == 120


def special_treatment(names: int, price: float, seed: int, days: int = DAYS) -> pd.DataFrame:
    """Shares under special treatment: to the tick, 5% a day at most, with runs of days that open and stay there."""
    rng = np.random.default_rng(seed)
    opened = sessions("XSHG", "2019-01-02", "2021-12-30")[:days]
    rows = []
    for number in range(names):
        last, run = price, 0
        for day in opened:
            low, high = np.round(last * 0.95, 2), np.round(last * 1.05, 2)
            if run == 0 and rng.random() < 0.04:
                run = int(rng.integers(2, 16)) * int(rng.choice([-1, 1]))
            locked = run != 0 and rng.random() < 0.8
            aim = high if run > 0 else low if run < 0 else last * np.exp(0.018 * rng.standard_t(3))
            close = np.round(np.clip(aim, low, high), 2)
            first = close if locked else np.round(np.clip(last * np.exp(rng.normal(0, 0.01)), low, high), 2)
            wide = np.zeros(2) if locked else np.round(np.abs(rng.normal(0, 0.01, 2)) * close, 2)
            ends = max(first, min(high, max(first, close) + wide[0])), min(first, max(low, min(first, close) - wide[1]))
            volume = 100 * int(rng.integers(1, 200) if locked else rng.integers(500, 90_000))
            rows.append((day, f"SH600{number:03d}", first, max(ends[0], close), min(ends[1], close), close, volume))
            last, run = close, run - int(np.sign(run))
    return parsed_frame(pd.DataFrame(rows, columns=["Date", "Symbol", "Open", "High", "Low", "Close", "Volume"]))


@pytest.mark.parametrize("price", [1.4, 3.0, 9.0])
def test_shares_that_stop_at_five_percent_are_not_misjudged(price: float) -> None:
    """Their runs at a limit that no code tells cost nothing and are no warning; an action that the factor lacks is
    found all the same, as beyond the limit that the code tells."""
    frame = special_treatment(8, price, seed=3)
    validation = validate(frame, RULES)
    assert (validation.quarantined, validation.warnings) == (0, {})
    for ratio in (1.5, 2.0):
        changed = frame.copy()
        rows = slice(AT, DAYS - 1)
        changed.loc[rows, list(PRICES)] = (changed.loc[rows, list(PRICES)] / ratio).round(2)
        changed.loc[rows, VOLUME] *= ratio
        assert validate(changed, RULES).shortened_instruments == {"SH600000": ["unadjusted_split"]}
