"""Instrument lists for Qlib that keep every name as it is written.

Qlib reads its lists with pandas' default missing-value words, so that the instruments NA, NAN or NULL become NaN.
"""

from qlib.data.storage.file_storage import FileInstrumentStorage

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE, read_membership


class NameKeepingInstrumentStorage(FileInstrumentStorage):
    """Qlib's instrument list, read by this project's own reader of the same format."""

    def _read_instrument(self) -> dict[str, list[tuple[object, object]]]:
        spells: dict[str, list[tuple[object, object]]] = {}
        frame = read_membership(self.uri)
        for name, first, last in zip(frame[INSTRUMENT], frame[FIRST_DATE], frame[LAST_DATE], strict=True):
            spells.setdefault(name, []).append((first, last))
        return spells
