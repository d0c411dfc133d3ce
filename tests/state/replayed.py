"""The history of models, read row by row without the code under test."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from mlops_tasks.state.tables import ModelTransition

LEGAL = {
    "training": "trained failed",
    "trained": "validated",
    "validated": "challenger",
    "challenger": "canary champion rejected",
    "canary": "challenger champion rejected",
    "champion": "retired rejected",
    "retired": "canary champion rejected",
    "rejected": "challenger canary champion",
    "failed": "",
}


_FIRST = datetime(1, 1, 1, tzinfo=UTC)


@dataclass
class Replayed:
    """What the rows say, one after the other."""

    states: dict[int | str, str] = field(default_factory=dict)
    """By version, or by training key before the registration."""
    champions: list[tuple[datetime, int | None]] = field(default_factory=list)
    """When the champion changed, and to which version."""
    rows: int = 0
    last: datetime = _FIRST

    @property
    def champion(self) -> int | None:
        """The version that is champion after the last row."""
        return self.champions[-1][1] if self.champions else None

    def read(self, rows: Sequence[ModelTransition]) -> "Replayed":
        """Read the next rows; each must follow from those before it."""
        for row in rows:
            self.rows += 1
            assert row.sequence == self.rows
            assert row.at >= self.last
            self.last = row.at
            self._read(row)
            assert sum(state == "champion" for state in self.states.values()) <= 1
            assert (self.champion is not None) == ("champion" in self.states.values())
        return self

    def _read(self, row: ModelTransition) -> None:
        before = self._state(row)
        assert row.before == before
        assert row.after in LEGAL[before].split()
        if row.replaced_version is not None:
            assert row.after == "champion" and self.champion == row.replaced_version
            assert row.replaced_after in LEGAL["champion"].split()
            self.states[row.replaced_version] = row.replaced_after
        elif row.after == "champion":
            assert self.champion is None
        if row.after == "champion":
            self.champions.append((row.at, row.model_version))
        elif before == "champion":
            self.champions.append((row.at, None))
        self.states[row.training_key if row.model_version is None else row.model_version] = row.after

    def _state(self, row: ModelTransition) -> str:
        if row.model_version is None:
            first = row.before if row.before == "challenger" else "trained"  # older records lack the version
            return self.states.get(row.training_key, first)
        return self.states.get(row.model_version) or self.states.get(row.training_key, "challenger")

    def at(self, moment: datetime) -> int | None:
        """Who was champion at a time."""
        found = None
        for since, version in self.champions:
            if since <= moment:
                found = version
        return found

    def on(self, day: date) -> list[int]:
        """Who was champion at any microsecond of a day, in order, each once in a row."""
        begin = datetime.combine(day, time(), UTC)
        moments = [begin, *(at for at, _ in self.champions if begin <= at < begin + timedelta(days=1))]
        found: list[int] = []
        previous = None
        for moment in moments:
            version = self.at(moment)
            if version is not None and version != previous:
                found.append(version)
            previous = version
        return found
