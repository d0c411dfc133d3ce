"""Where bars come from: files and the synthetic market; vendor names end here."""

from mlops_tasks.data.sources.parsed import ParsedBars
from mlops_tasks.data.sources.reader import read_source

__all__ = ["ParsedBars", "read_source"]
