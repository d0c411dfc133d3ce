"""Qlib's Alpha360 factor list: the prices and volumes of the last 60 days as shares of the newest close and volume."""

from mlops_tasks.columns import CLOSE, HIGH, LOW, OPEN, VOLUME, VWAP

DAYS = 60


def alpha360() -> dict[str, str]:
    """Name to expression, in the order and the text of Qlib 0.9.7's default configuration (`Alpha360DL`)."""
    unit = {**dict.fromkeys((CLOSE, OPEN, HIGH, LOW, VWAP), "$close"), VOLUME: "($volume+1e-12)"}
    return {
        f"{field.upper()}{days}": f"Ref(${field}, {days})/{latest}" if days else f"${field}/{latest}"
        for field, latest in unit.items()
        for days in reversed(range(DAYS))
    }
