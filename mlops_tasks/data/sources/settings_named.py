"""How messages name the settings of a source that would help."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlops_tasks.columns import INSTRUMENT


@dataclass(frozen=True)
class SettingsNamed:
    """The settings of one source: of its entry in `data.sources`, or of the entry that a path does not have yet."""

    source: str
    named: bool

    def to(self, option: str, *values: object) -> str:
        """Advice to set an option to one of several values."""
        *others, last = [as_yaml(value) for value in values]
        value = f"{', '.join(others)} or {last}" if others else last
        if self.named:
            return f"set data.sources.{self.source}.{option}: {value}"
        return f"set {option}: {value} in an entry of data.sources (`alphaops doctor --source PATH` proposes one)"

    def instrument_remedies(self, missing: Sequence[str]) -> Iterator[str]:
        """What to do where the table has all columns of bars but the instrument's."""
        if list(missing) == [INSTRUMENT]:
            yield f"if each file holds one instrument and is named after it, {self.to('instrument_from', 'file_name')}"


def as_yaml(value: object) -> str:
    """A value as it is written in the settings."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_yaml(each) for each in value)}]"
    text = str(value)
    if text == "\t":
        return '"\\t"'
    return text if text.replace("_", "").replace("-", "").isalnum() else f'"{text}"'
