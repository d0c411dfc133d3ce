"""The column names that every stage shares. Vendor names are translated once, in `data/sources/`."""

DATETIME = "datetime"
INSTRUMENT = "instrument"
OPEN = "open"
HIGH = "high"
LOW = "low"
CLOSE = "close"
VOLUME = "volume"
VWAP = "vwap"
FACTOR = "factor"
PRECLOSE = "preclose"
"""Only of parsed rows, where a source has it: the previous close as the exchange gives it, in the prices of the day, so
that it differs from that close by splits and dividends."""
CHANGE = "change"
"""Only of Qlib's store: adjusted close / that of the instrument's previous bar - 1."""
LABEL = "label"
SCORE = "score"
SEGMENT = "segment"

SEGMENTS = ("train", "valid", "test")
"""What trading days are split into, in the order of time."""

KEY = (DATETIME, INSTRUMENT)
PRICES = (OPEN, HIGH, LOW, CLOSE)
"""Prices without which a row is no bar; `vwap` is optional."""

BAR_FIELDS = (OPEN, HIGH, LOW, CLOSE, VOLUME, VWAP, FACTOR)
"""Fields of the bar store: raw prices (currency units), volume (shares), adjusted = raw * factor."""
