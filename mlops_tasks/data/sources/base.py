"""The interface of every source of bars: a name, and one reading of all its rows."""

from typing import Protocol

from mlops_tasks.data.sources.parsed import ParsedBars


class BarSource(Protocol):
    """A place that bars come from. `tests/data/sources/contract.py` states what every implementation guarantees.

    A reading returns every row, good or bad, with raw prices (adjusted = raw * factor), and says where each row came
    from; two readings of unchanged content are equal. Nothing is filtered: validation decides what is a bar.
    """

    @property
    def name(self) -> str:
        """The name of the source in logs, reports and manifests: a path or a name of `data.sources`, never a secret."""

    def read(self) -> ParsedBars:
        """Read everything.

        Raises
        ------
        SourceNotFoundError
            There is nothing of that name.
        SourceError
            It cannot be read as bars: unreadable, empty, or a required column is missing; names the remedy.
        """
