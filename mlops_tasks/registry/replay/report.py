"""What a replay has found, part by part."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from mlops_tasks.states import DAMAGE, ReplayRefusal, ReplayVerdict


class Part(StrEnum):
    """What is compared, in the order in which one follows from the other."""

    FEATURES = "features"
    LEARNING_DATA = "learning data"
    MODEL = "model"
    SCORES = "scores"


class Standing(StrEnum):
    """How a part compares."""

    EQUAL = "equal"
    """To the last bit."""
    DIFFERENT = "different"
    NOT_COMPARED = "not compared"
    """What was recorded of it is no longer there."""


@dataclass(frozen=True)
class FirstDifference:
    """The first value that differs: by date, then instrument, then column."""

    date: str
    """ISO date."""
    instrument: str
    column: str | None
    """None: only one side has the row."""
    recorded: float | None
    """None: NaN, or no such row."""
    replayed: float | None

    def __str__(self) -> str:
        where = f"{self.instrument} on {self.date}"
        if self.column is None:
            return f"only one of the two has a row of {where}"
        recorded, replayed = ("no value" if each is None else f"{each:.9g}" for each in (self.recorded, self.replayed))
        return f"{self.column} of {where}: {recorded} was recorded, the replay has {replayed}"


@dataclass(frozen=True)
class Compared:
    """One part, compared."""

    part: Part
    standing: Standing
    said: str = ""
    """What was compared or why it was not, in words."""
    values: int = 0
    """How many values were compared."""
    differing: int = 0
    """How many of them differ; rows that only one side has count as one each."""
    first: FirstDifference | None = None
    largest: float | None = None
    """Largest absolute difference of two finite values."""
    relative: float | None = None
    """The same relative to the standard deviation of the recorded values; of scores only."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        first = content["first"]
        typed = {
            "part": Part(content["part"]),
            "standing": Standing(content["standing"]),
            "first": None if first is None else FirstDifference(**first),
        }
        return cls(**{**content, **typed})

    def __str__(self) -> str:
        words = [f"{self.part}: {self.standing}"]
        if self.values and self.standing is Standing.EQUAL:
            words.append(f"{self.values:,} values")
        if self.differing:
            size = "" if self.largest is None else f", by up to {self.largest:.3g}"
            size += "" if self.relative is None else f" ({self.relative:.3g} of the scores' standard deviation)"
            words.append(f"{self.differing:,} of {self.values:,} values{size}")
        if self.first is not None:
            words.append(f"first {self.first}")
        return "; ".join([*words, *([self.said] if self.said else [])])


@dataclass(frozen=True)
class EnvironmentDifference:
    """Something about code, libraries or hardware that is not what it was when the version was trained."""

    what: str
    recorded: str
    present: str
    decisive: bool
    """Whether it may change a model by what the project knows of it; a replay is refused then."""

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded} then, {self.present} now"


@dataclass(frozen=True)
class ReplayReport:
    """A replay that has ended, however it has ended."""

    version: int
    training_key: str
    """Empty where the version names none."""
    model: str
    """Name in the zoo; empty where it is not known."""
    data_version: str
    verdict: ReplayVerdict
    by: str
    began: str
    """UTC, ISO 8601."""
    seconds: float
    refusal: ReplayRefusal | None = None
    why: str = ""
    """Why it was refused or is unfinished, with the remedy."""
    parts: tuple[Compared, ...] = ()
    environment: tuple[EnvironmentDifference, ...] = ()
    anyway: bool = False
    """Whether it was asked to go on in another environment."""

    @property
    def is_reproduced(self) -> bool:
        """Whether the scores are equal, or within the tolerance."""
        return self.verdict in (ReplayVerdict.EQUAL, ReplayVerdict.WITHIN_TOLERANCE)

    @property
    def first_difference(self) -> Compared | None:
        """The first part that differs; None where none does."""
        return next((each for each in self.parts if each.standing is Standing.DIFFERENT), None)

    @property
    def reason(self) -> str:
        """Why the verdict is what it is; empty where all is equal."""
        return self.why or ("" if self.first_difference is None else str(self.first_difference))

    @property
    def is_alarming(self) -> bool:
        """Whether people have to know: the scores differ, what they are made of does, or something was lost."""
        inputs = (Part.FEATURES, Part.LEARNING_DATA)
        differ = any(each.standing is Standing.DIFFERENT and each.part in inputs for each in self.parts)
        return self.verdict is ReplayVerdict.DIFFERENT or differ or self.refusal in DAMAGE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; also what is kept."""
        return {**asdict(self), "parts": [each.to_json() for each in self.parts]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        typed = {
            "verdict": ReplayVerdict(content["verdict"]),
            "refusal": None if content["refusal"] is None else ReplayRefusal(content["refusal"]),
            "parts": tuple(map(Compared.from_json, content["parts"])),
            "environment": tuple(EnvironmentDifference(**each) for each in content["environment"]),
        }
        return cls(**{**content, **typed})

    def lines(self) -> Iterator[str]:
        """The report as text."""
        about = f" ({self.model}, vintage {self.data_version})" if self.model else ""
        yield f"version {self.version}{about}: {self.verdict.replace('_', ' ')}, replayed in {self.seconds:.1f} s"
        if self.why:
            yield f"  {self.why}"
        yield from (f"  {each}" for each in self.parts)
        if self.environment:
            yield "  what has changed since it was trained:"
        for each in self.environment:
            yield f"    {each}{'' if each.decisive else ' (which should change no model)'}"
