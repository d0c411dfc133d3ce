"""What a validation makes of a market with planted truth: by kind and by rule, what is found, missed and false."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.exchanges.calendars import CALENDAR
from mlops_tasks.data.validation.rules import Validation, taken_rows
from tests.data.planted_market import Market

NAMING = ("possible_action", "factor_unmatched")
"""Warnings that say of a row that its factor may be wrong: such an error is named, though nothing is kept back."""
SCALES = ("common_price_unit", "common_volume_unit", "common_volume_change")
"""Findings about a session that say that a market is counted in another unit."""
RULE = "rule"


@dataclass(frozen=True)
class Truth:
    """`kinds`: of each kind of planted things how many there are, are visible, were quarantined, were only warned of,
    and were missed (visible errors); for true events `lost` counts those that cost a row. `rules`: of each rule the
    rows, instruments or sessions that it was right and wrong about. Wrong is a row that nothing planted explains."""

    kinds: pd.DataFrame
    rules: pd.DataFrame
    rows: int
    good_rows_lost: int
    dead_names: int
    dead_names_lost: int

    @property
    def found_share(self) -> float:
        """Of the errors that are visible in principle."""
        errors = self.kinds[self.kinds["error"]]
        return float(1 - errors["missed"].sum() / errors["visible"].sum())

    @property
    def events_lost(self) -> int:
        """True events of which a row was quarantined."""
        return int(self.kinds.loc[~self.kinds["error"], "lost"].sum())


def judge(market: Market, validation: Validation) -> Truth:
    """Hold a validation of `market.frame` against what was planted."""
    accepted = validation.accepted
    excused = np.zeros(len(accepted), dtype=bool)
    for planted in market.planted:
        excused[planted.may_lose] = True
    named, told = _named(market, validation), _told_sessions(validation)
    counts: dict[str, dict[str, int | bool]] = {}
    for planted in market.planted:
        row = counts.setdefault(
            planted.kind,
            {"error": planted.error, "planted": 0, "visible": 0, "found": 0, "warned": 0, "missed": 0, "lost": 0},
        )
        row["planted"] += 1
        if planted.calendar is not None:
            fatal = (planted.calendar, planted.day) in told[True]
            warned = not fatal and (planted.calendar, planted.day) in told[False]
            row["visible"] += 1
            row["found"] += fatal
            row["warned"] += warned
            row["missed"] += not fatal and not warned
            continue
        lost = not accepted[planted.rows].all()
        if not planted.error:
            row["lost"] += bool((~accepted[planted.rows] & ~excused[planted.rows]).any())
            continue
        warned = not lost and any(
            (planted.instrument, planted.day + days) in named for days in (np.timedelta64(d, "D") for d in range(-4, 5))
        )
        row["visible"] += planted.visible
        row["found"] += lost
        row["warned"] += warned
        row["missed"] += planted.visible and not lost and not warned
    wrong = ~accepted & ~excused
    dead = [name for name, rows in market.dead.items() if not accepted[rows[~excused[rows]]].any()]
    kinds = pd.DataFrame.from_dict(counts, orient="index").sort_index().sort_values("error", kind="stable")
    whole = [name for name in dead if (~excused[market.dead[name]]).any()]
    return Truth(kinds, _by_rule(validation, excused), len(accepted), int(wrong.sum()), len(market.dead), len(whole))


def render(truth: Truth) -> str:
    """The two tables and the four numbers, for a reader."""
    return "\n".join(
        [
            truth.kinds.to_string(),
            truth.rules.to_string(),
            f"{truth.rows} rows; visible errors found {truth.found_share:.2%}; good rows lost {truth.good_rows_lost} "
            f"({truth.good_rows_lost / truth.rows:.4%}); true events that lost a row {truth.events_lost}; "
            f"dead names lost {truth.dead_names_lost} of {truth.dead_names}",
        ]
    )


def _named(market: Market, validation: Validation) -> set[tuple[str, np.datetime64]]:
    names = market.frame[INSTRUMENT].to_numpy()
    days = market.frame[DATETIME].to_numpy().astype("datetime64[D]")
    found: set[tuple[str, np.datetime64]] = set()
    for broken in validation.bars:
        if broken.rule.rule in NAMING:
            found |= set(zip(names[broken.positions].tolist(), days[broken.positions], strict=True))
    return found


def _told_sessions(validation: Validation) -> dict[bool, set[tuple[str, np.datetime64]]]:
    """Calendar and day of the sessions whose scale is found to change, by whether that rejects the vintage."""
    found: dict[bool, set[tuple[str, np.datetime64]]] = {True: set(), False: set()}
    for broken in validation.sessions:
        if broken.rule.rule in SCALES:
            rows = validation.measures.sessions.iloc[broken.positions]
            days = rows[DATETIME].to_numpy().astype("datetime64[D]")
            found[broken.rule.severity == "vintage"] |= set(zip(rows[CALENDAR].tolist(), days, strict=True))
    return found


def _by_rule(validation: Validation, excused: np.ndarray) -> pd.DataFrame:
    counts = []
    for broken in validation.bars:
        right = int(excused[broken.positions].sum())
        counts.append((broken.rule.rule, broken.rule.severity, right, len(broken.positions) - right))
    for broken in validation.instruments:
        if broken.rule.severity == "warning":
            counts.append((broken.rule.rule, broken.rule.severity, len(broken.positions), 0))
            continue
        taken = taken_rows(validation.measures, [broken])
        owners = validation.measures.codes
        wrong = np.unique(owners[taken & ~excused])
        counts.append((broken.rule.rule, broken.rule.severity, len(broken.positions) - len(wrong), len(wrong)))
    for broken in validation.sessions:
        counts.append((broken.rule.rule, broken.rule.severity, len(broken.positions), 0))
    return pd.DataFrame(counts, columns=[RULE, "severity", "right", "wrong"]).set_index(RULE)
