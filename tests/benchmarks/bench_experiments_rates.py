"""Methods of analysis of experiments: how often each finds an effect where there is none, and where there is one.

By kind of data, days (60, 120, 252) and looks (one, weekly, daily), in `COUNT` simulated experiments without effect
(`ONE_LOOK_COUNT` at one look) and `POWER_COUNT` with one of `EFFECT` standard deviations of a day. The pieces are kept
as they are measured. The table is written to `var/bench/experiments_rates.json`; copied to
`include/experiments/rates.json` it is what the product offers and refuses methods by, and
`python -m tests.experiments.rates_page` writes the tables of docs/experiments.md from it.

`ours` is the largest rate of false findings of a method that is offered for its case, `peer` that of the test of Newey
and West, or of Student's where it is looked at again and again; `power` the mean power of the best method that is
offered, of all cases, and `wrong_power` that of the best one that is not. `other` in the table has false findings on
days outside these kinds; nothing is offered by them.
"""

import time
from pathlib import Path
from typing import Any

from mlops_tasks.config import PROJECT
from mlops_tasks.files import write_json
from tests.benchmarks.pieces import Pieces

COUNT, POWER_COUNT, EFFECT = 10_000, 2_000, 0.25
ONE_LOOK_COUNT = 40_000
"""Without effect at one look, of methods that draw no resamples: the tests of a mean come near their level there."""
_PART = 5_000
"""Series that are held at once."""
DAYS = (60, 120, 252)
TABLE = PROJECT / "var" / "bench" / "experiments_rates.json"


def run() -> dict[str, Any]:
    """All cells, those of daily use first."""
    from tests.experiments.simulated_units import UNIT_DATA, UNIT_METHODS

    pieces, rows, started = Pieces.of("experiments_rates", _code()), [], time.perf_counter()
    for methods, count in _stages():
        for n in DAYS:
            for data in _data():
                rows += pieces.get(
                    f"{'-'.join(methods)[:40]}-{data}-{n}-{count}",
                    lambda methods=methods, data=data, n=n, count=count: dated_rates(
                        methods, data, n, count, POWER_COUNT
                    ),
                )
    for n in DAYS:
        for data in UNIT_DATA:
            rows += pieces.get(
                f"units-{data}-{n}", lambda data=data, n=n: unit_rates(UNIT_METHODS, data, n, COUNT, POWER_COUNT)
            )
    other = [row for n in DAYS for row in pieces.get(f"other-{n}", lambda n=n: other_rates(n, COUNT))]
    write_json(TABLE, {"effect": EFFECT, "rates": rows, "other": other})
    return {"name": "experiments_rates", **summary(rows), "seconds": round(time.perf_counter() - started, 1)}


def dated_rates(methods: tuple[str, ...], data: Any, n: int, count: int, power_count: int) -> list[dict[str, Any]]:
    """Rows of the table for one kind of daily differences and number of days; at several looks of `COUNT` at most."""
    import numpy as np

    from mlops_tasks.experiments.inference.offers import Looks
    from tests.experiments.simulated import BOUNDARIES, ONE_LOOK, draw, found

    null = [draw(data, min(_PART, count - start), n, 2 * part) for part, start in enumerate(range(0, count, _PART))]
    other = draw(data, power_count, n, 1)
    return [
        _row(
            method,
            (data, n, looks),
            np.concatenate(
                [found(method, series, looks) for series in null[: None if looks is Looks.ONE else COUNT // _PART]]
            ),
            found(method, other, looks, EFFECT),
        )
        for method in methods
        for looks in Looks
        if not (method in ONE_LOOK and looks is not Looks.ONE) and not (method in BOUNDARIES and looks is Looks.ONE)
    ]


def unit_rates(methods: tuple[str, ...], data: Any, n: int, count: int, power_count: int) -> list[dict[str, Any]]:
    """The same for units that are independent of each other, n in each arm."""
    from mlops_tasks.experiments.inference.offers import Looks
    from tests.experiments.simulated_units import found_units

    null, other = (
        found_units(methods, (data, n), number, effect, seed)
        for number, effect, seed in ((count, 0.0, 0), (power_count, EFFECT, 1))
    )
    return [_row(method, (data, n, Looks.ONE), null[method], other[method]) for method in methods]


def other_rates(n: int, count: int) -> list[dict[str, Any]]:
    """False findings on days outside the kinds of the table; a series that is refused for its persistence is none."""
    import numpy as np

    from mlops_tasks.evaluation.long_run import autocorrelation
    from mlops_tasks.experiments.inference.offers import MOST_AUTOCORRELATION
    from tests.experiments.other_days import OTHER_DAYS, OTHER_METHODS, draw_other
    from tests.experiments.simulated import found

    rows = []
    for kind in OTHER_DAYS:
        parts = [
            draw_other(kind, min(_PART, count - start), n, part) for part, start in enumerate(range(0, count, _PART))
        ]
        tested = [autocorrelation(series) <= MOST_AUTOCORRELATION for series in parts]
        for method, looks in OTHER_METHODS:
            false = [found(method, series, looks) & seen for series, seen in zip(parts, tested, strict=True)]
            rate = round(float(np.concatenate(false).mean()), 4)
            cell = {"kind": kind, "n": n, "method": str(method), "looks": str(looks)}
            rows.append({**cell, "false": rate, "count": count})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The result line."""
    from mlops_tasks.experiments.inference.offers import MOST_FALSE, observations_of

    by_case: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        case = (observations_of(row["method"]), row["data"], row["n"], row["looks"])
        by_case.setdefault(case, []).append(row)
    right = [max((r["power"] for r in case if r["false"] <= MOST_FALSE), default=0.0) for case in by_case.values()]
    wrong = [max((r["power"] for r in case if r["false"] > MOST_FALSE), default=0.0) for case in by_case.values()]
    ours = max(row["false"] for row in rows if row["false"] <= MOST_FALSE)
    peer = max(row["false"] for row in rows if row["method"] in ("newey_west", "student"))
    return {
        "ours": ours,
        "peer": peer,
        "unit": "largest share of false findings at 5%",
        "ratio": round(peer / ours, 2),
        "cells": len(rows),
        "refused": sum(row["false"] > MOST_FALSE for row in rows),
        "power": round(sum(right) / len(right), 3),
        "wrong_power": round(sum(wrong) / len(wrong), 3),
    }


def _row(method: str, cell: tuple[Any, int, Any], false: Any, power: Any) -> dict[str, Any]:
    data, n, looks = cell
    return {
        "method": str(method),
        "data": str(data),
        "n": n,
        "looks": str(looks),
        "false": round(float(false.mean()), 4),
        "power": round(float(power.mean()), 3),
        "effect": EFFECT,
        "count": len(false),
    }


def _stages() -> tuple[tuple[tuple[str, ...], int], ...]:
    """Methods that are measured together, and in how many experiments without effect at one look."""
    from mlops_tasks.experiments.inference.results import Method

    return (
        ((Method.PREWHITENED, Method.PREWHITENED_POCOCK), ONE_LOOK_COUNT),
        (
            (Method.PAIRED, Method.OBRIEN_FLEMING, Method.POCOCK, Method.OPEN_ENDED, Method.STUDENT, Method.NEWEY_WEST),
            ONE_LOOK_COUNT,
        ),
        ((Method.SWITCHBACK,), COUNT),
        ((Method.CIRCULAR_BOOTSTRAP, Method.STATIONARY_BOOTSTRAP), COUNT),
    )


def _data() -> tuple[Any, ...]:
    from mlops_tasks.experiments.inference.offers import Data

    return tuple(Data)


def _code() -> list[Path]:
    inference = PROJECT / "mlops_tasks" / "experiments" / "inference"
    evaluation = PROJECT / "mlops_tasks" / "evaluation"
    return [
        *(evaluation / f"{name}.py" for name in ("confidence_sequences", "long_run", "planned_looks", "significance")),
        *(inference / f"{name}.py" for name in ("resampling", "switchback", "units")),
        *(PROJECT / "tests" / "experiments" / f"{name}.py" for name in ("other_days", "simulated", "simulated_units")),
    ]
