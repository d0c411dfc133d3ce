"""The one ledger of the gate's looks: those of its decisions, and those that experiments with models have reserved."""

from datetime import date

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.evaluation.looks import Entry, Look, MarketDays, Reservation
from mlops_tasks.state.looks import LookRows, look_rows


def ledger_of(rows: LookRows) -> tuple[Entry, ...]:
    """What `plan_look` and `reserve_look` ask for; a look that was decided on more than once is there once."""
    looks = [Look.from_json(row.decision["look"]) for row in rows.decisions]
    once = {(look.subject, look.kind): look for look in looks}
    reserved = [Reservation.from_json(row.look) for row in rows.steps if row.look is not None]
    return (*once.values(), *reserved)


def ledger(settings: Settings) -> tuple[Entry, ...]:
    """The ledger as it stands."""
    return ledger_of(look_rows(settings))


def market_today(settings: Settings) -> tuple[MarketDays, date]:
    """The market's days, and the newest one, of the bars in use.

    Raises
    ------
    StoreError
        No vintage is in use yet.
    """
    vintage = current_vintage(settings)
    return MarketDays(vintage.calendar()), date.fromisoformat(vintage.last_date)
