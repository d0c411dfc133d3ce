"""Where bars come from: files, databases, vendors and the synthetic market; vendors' column names end here."""

from mlops_tasks.data.sources.base import BarSource
from mlops_tasks.data.sources.parsed import ParsedBars, RawFile
from mlops_tasks.data.sources.reader import open_source, read_source

__all__ = ["BarSource", "ParsedBars", "RawFile", "open_source", "read_source"]
