"""What a vintage diff leads to: accept, warn or block. A pure function of the diff's summary and the settings.

Nothing is judged between different markets: a user who switches from the synthetic market to real bars is not stopped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_tasks.columns import BAR_FIELDS
from mlops_tasks.config import VintageDecision, VintagePolicySettings
from mlops_tasks.data.revisions.changes import ADDED, HISTORY, READJUSTED, REFACTORED, REMOVED, ROUNDED, SCALED
from mlops_tasks.errors import first_few

SCALE_TOLERANCE = 0.25
"""How close the median log10 of new over old values is to a whole number where the units changed."""

_SEVERITY: Mapping[VintageDecision, int] = {"accept": 0, "warn": 1, "block": 2}

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Reason:
    """One rule's finding; the message names counts, the first instruments and dates, the limit and the remedy."""

    rule: str
    decision: VintageDecision
    message: str


@dataclass(frozen=True)
class Verdict:
    """The severest decision of all reasons, and the reasons, the severest first."""

    decision: VintageDecision
    reasons: tuple[Reason, ...]

    @classmethod
    def of(cls, reasons: Sequence[Reason]) -> "Verdict":
        """The verdict that follows from these reasons; none: accept."""
        ordered = sorted(reasons, key=lambda reason: -_SEVERITY[reason.decision])
        return cls(ordered[0].decision if ordered else "accept", tuple(ordered))

    def text(self, data_version: str) -> str:
        """All reasons that need attention, and how to let the vintage pass if the changes are right."""
        told = [reason for reason in self.reasons if reason.decision != "accept"]
        lines = [f"{reason.decision} by rule {reason.rule}: {reason.message}" for reason in told]
        if self.decision == "block":
            lines.append(f'if this is right: alphaops approve {data_version} --reason "..." and sync again')
        return "\n  ".join(lines)


def judge(summary: Summary, policy: VintagePolicySettings) -> Verdict:
    """Judge a diff by all rules.

    Parameters
    ----------
    summary
        `VintageDiff.summary()`.
    policy
        Limits; each rule names its own.
    """
    if not summary["same_market"]:
        instruments = summary["instruments"]
        note = f"another market: {instruments['common']} of {instruments['old']} instruments are in both"
        return Verdict.of([Reason("another_market", "accept", note)])
    return Verdict.of([reason for rule in _RULES for reason in rule(summary, policy)])


def _restated_rows(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    found = {kind: summary["changes"][kind] for kind in HISTORY if summary["changes"][kind]["cells"]}
    if not found:
        return
    share = summary["restated_share"]
    limit = policy.max_restated_rows_share
    told = "; ".join(f"{kind}: {_cells(info)}" for kind, info in found.items())
    yield Reason(
        "restated_rows",
        "block" if share > limit else "warn",
        f"{share:.3%} of the common rows changed ({limit:.3%} allowed); {told}"
        f"{_largest(summary)}; ask the vendor why, or raise vintage_policy.max_restated_rows_share",
    )


def _price_change(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    beyond = [c for c in summary["largest"]["price"] if abs(c["relative_change"]) > policy.max_price_change]
    if beyond:
        yield Reason(
            "price_change",
            "block",
            f"prices are restated by more than {policy.max_price_change:.0%}: {_named(beyond)}; "
            "look at them, or raise vintage_policy.max_price_change",
        )


def _readjusted(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["changes"][READJUSTED]
    share = _of_instruments(info, summary)
    if info["cells"]:
        yield Reason(
            "readjusted_instruments",
            "warn" if share > policy.max_readjusted_instruments_share else "accept",
            f"{share:.1%} of the instruments are re-adjusted by a constant ratio "
            f"({policy.max_readjusted_instruments_share:.1%} usual): {_cells(info)}; "
            "dividends and splits do that; otherwise see vintage_policy.max_readjusted_instruments_share",
        )


def _refactored(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["changes"][REFACTORED]
    yield from _instrument_share(
        "refactored_instruments", info, summary, policy.max_refactored_instruments_share, "factors changed irregularly"
    )


def _units(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["changes"][SCALED]
    yield from _instrument_share(
        "scaled_instruments", info, summary, policy.max_scaled_instruments_share, "fields are a power of ten larger"
    )
    for field, scale in summary["appended"]["scale"].items():
        if scale is not None and round(scale) and abs(scale - round(scale)) <= SCALE_TOLERANCE:
            yield Reason(
                "units",
                "block",
                f"from {summary['old_last_date']} to {summary['appended_from']} the median {field} is "
                f"{10**scale:.3g} times what it was; correct the source's unit of {field}",
            )


def _jumps(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["jumps"]
    if not info["rows"]:
        return
    share, worst = _of_instruments(info, summary), info["days"][0]
    yield Reason(
        "jumping_instruments",
        "block" if share > policy.max_jumping_instruments_share else "warn",
        f"{info['instruments']} instruments move by more than 40% where they did not before "
        f"({policy.max_jumping_instruments_share:.1%} of the instruments allowed): {worst['instruments']} on "
        f"{worst['date']}, by {worst['median_move']:+.1%} at the median; correct prices or factors around it, "
        "or raise vintage_policy.max_jumping_instruments_share",
    )


def _shared_series(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    found = {field: info for field, info in summary["shared_series"].items() if info["count"]}
    if found:
        told = "; ".join(f"{field}: {info['count']} ({_some(info)})" for field, info in found.items())
        yield Reason(
            "shared_series",
            "block",
            f"instruments that now have one identical series, by field: {told}; the source gave one instrument's "
            "values to others; correct it",
        )


def _removed(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    gone, rows = summary["instruments"][REMOVED], summary["changes"][REMOVED]
    if gone["count"]:
        share = gone["count"] / summary["instruments"]["old"]
        yield Reason(
            "removed_instruments",
            "block" if share > policy.max_removed_instruments_share else "warn",
            f"{gone['count']} instruments are gone with all their rows "
            f"({policy.max_removed_instruments_share:.1%} allowed): {_some(gone)}; ask the source for them, or raise "
            "vintage_policy.max_removed_instruments_share",
        )
    kept = summary["rows"][REMOVED] - summary["rows"]["removed_with_instrument"]
    if kept:
        share = kept / summary["rows"]["old"]
        yield Reason(
            "removed_rows",
            "block" if share > policy.max_removed_rows_share else "warn",
            f"{kept} rows are gone from instruments that are still there ({share:.3%} of all, "
            f"{policy.max_removed_rows_share:.3%} allowed); all that is gone: {_cells(rows)}; ask the source for "
            "them, or raise vintage_policy.max_removed_rows_share",
        )


def _added(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["changes"][ADDED]
    if info["cells"]:
        yield Reason("added_rows", "warn", f"rows were added to the past: {_cells(info)}; check that this is intended")


def _rounded(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["changes"][ROUNDED]
    if info["cells"]:
        yield Reason("rounded", "accept", f"last digits changed: {_cells(info)}")


def _end(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    old, new = summary["old_last_date"], summary["new_last_date"]
    if new < old:
        yield Reason(
            "earlier_end",
            policy.earlier_end,
            f"the last date goes back from {old} to {new}; give the newer source, or set vintage_policy.earlier_end",
        )


def _coverage(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    lowest = summary["appended"]["lowest_coverage"]
    if lowest and lowest["share"] < policy.min_coverage:
        yield Reason(
            "coverage",
            "block",
            f"on {lowest['date']} only {lowest['share']:.1%} of the {lowest['expected']} instruments that traded on "
            f"{summary['old_last_date']} have a bar ({policy.min_coverage:.1%} needed): {lowest['missing']} are "
            f"missing ({first_few(lowest['first'], of=lowest['missing'])}); wait for the source, or lower "
            "vintage_policy.min_coverage",
        )


def _calendar(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    changes = summary["calendar"]
    if changes[ADDED]["count"] or changes[REMOVED]["count"]:
        told = [f"{info['count']} {kind} ({_some(info)})" for kind, info in changes.items() if info["count"]]
        yield Reason(
            "calendar_changes",
            policy.calendar_changes,
            f"trading days of the past: {', '.join(told)}; correct the source, or set vintage_policy.calendar_changes",
        )


def _universe(summary: Summary, policy: VintagePolicySettings) -> Iterator[Reason]:
    info = summary["universe"]
    if info["spells"]:
        yield Reason(
            "universe_changes",
            policy.universe_changes,
            f"{info['spells']} membership spells of the past changed, of {_some(info)}; "
            "check the membership file, or set vintage_policy.universe_changes",
        )


_RULES: Sequence[Callable[[Summary, VintagePolicySettings], Iterator[Reason]]] = (
    _shared_series,
    _units,
    _end,
    _coverage,
    _calendar,
    _removed,
    _restated_rows,
    _price_change,
    _jumps,
    _refactored,
    _readjusted,
    _added,
    _universe,
    _rounded,
)


def _instrument_share(
    rule: str, info: Mapping[str, Any], summary: Summary, limit: float, what: str
) -> Iterator[Reason]:
    share = _of_instruments(info, summary)
    if info["cells"]:
        yield Reason(
            rule,
            "block" if share > limit else "warn",
            f"{what} in {share:.1%} of the instruments ({limit:.1%} allowed): {_cells(info)}; correct the source, or "
            f"raise vintage_policy.max_{rule}_share",
        )


def _of_instruments(info: Mapping[str, Any], summary: Summary) -> float:
    return float(info["instruments"] / max(summary["instruments"]["common"], 1))


def _cells(info: Mapping[str, Any]) -> str:
    fields = ", ".join(f"{name} {info['fields'][name]}" for name in BAR_FIELDS if name in info["fields"])
    return (
        f"{info['rows']} rows of {info['instruments']} instruments "
        f"({first_few(info['first'], of=info['instruments'])}), {info['first_date']} to {info['last_date']}, "
        f"cells: {fields}"
    )


def _some(info: Mapping[str, Any]) -> str:
    return first_few(info["first"], of=info["count"])


def _largest(summary: Summary) -> str:
    cells = [*summary["largest"]["price"][:2], *summary["largest"]["volume"][:1]]
    return f"; largest: {_named(cells)}" if cells else ""


def _named(cells: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{cell['instrument']} {cell['field']} {cell['date']} {cell['old']:g} to {cell['new']:g}" for cell in cells[:3]
    )
