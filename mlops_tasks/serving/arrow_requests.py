"""Requests as Apache Arrow streams, for many rows, without conversion to text and back.

The stream of a request has a column `instrument` and a numeric column for each feature; with only the first column it
asks for these instruments on a day, which the schema's metadata may name (`date`). The library that reads it is native
code and may use a multiple of the body's memory, so it runs only where large bodies are checked closely (`reader.py`).
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date

import numpy as np
import pyarrow as pa

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.errors import excerpt, first_few
from mlops_tasks.serving.messages import MOST_NAME
from mlops_tasks.serving.reading import (
    MOST_VALUES,
    BadRequestError,
    DayAsked,
    FeaturesGiven,
    RequestLimits,
    check_count,
    given_matrix,
)

_DATE = b"date"


class ArrowReader:
    """Reads requests in streams; not thread-safe."""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self._checked: pa.Schema | None = None
        """The last one that was in order: most clients send the same one each time, and to look at it takes longest."""

    def read(self, body: bytes) -> DayAsked | FeaturesGiven:
        """Parse the request in a stream.

        Raises
        ------
        BadRequestError
            It is not an Arrow stream, has columns of the wrong type, an invalid number, or more than the limits allow.
        """
        try:
            batch = self._content(body)
            metadata = dict(batch.schema.metadata or {})
            instruments = _instruments(batch)
            if batch.num_columns == 1:
                return DayAsked(instruments, _date(metadata))
            return _features(batch, instruments, metadata)
        except (BadRequestError, pa.ArrowMemoryError):
            raise
        except (pa.ArrowException, ValueError, OSError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise BadRequestError(f"the body is not an Arrow stream: {excerpt(said)}") from None

    def _content(self, body: bytes) -> pa.RecordBatch:
        source = pa.BufferReader(body)
        with pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
            schema = reader.schema
            self._check_schema(schema)
            width = len(schema) - 1
            rows, batches = 0, []
            for batch in reader:
                rows += batch.num_rows
                check_count("rows", rows, self.limits.rows if width else self.limits.names)
                if rows * width > MOST_VALUES:
                    raise BadRequestError(f"the body has more than {MOST_VALUES} values; send fewer rows", status=413)
                batch.validate(full=True)
                batches.append(batch)
        if source.tell() != len(body):
            raise BadRequestError(f"{len(body) - source.tell()} bytes follow the end of the stream; send one stream")
        if width and not rows:
            raise BadRequestError("the stream has no row; send at least one")
        if len(batches) == 1:
            return batches[0]
        return pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], schema)

    def _check_schema(self, schema: pa.Schema) -> None:
        if self._checked is None or not schema.equals(self._checked):
            _check_columns(schema)
            self._checked = schema


def _check_columns(schema: pa.Schema) -> None:
    names = schema.names
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise BadRequestError(f"columns {first_few(map(excerpt, twice))} are given twice; give each once")
    if INSTRUMENT not in names:
        raise BadRequestError(f"there is no column {INSTRUMENT!r}; add it, as text")
    for field in schema:
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        number = pa.types.is_float32(field.type) or pa.types.is_float64(field.type)
        if not (text if field.name == INSTRUMENT else number):
            wanted = "string" if field.name == INSTRUMENT else "float or double"
            raise BadRequestError(f"column {excerpt(field.name)} is {excerpt(str(field.type))}; send it as {wanted}")


def _instruments(batch: pa.RecordBatch) -> list[str]:
    names: list[str | None] = batch.column(INSTRUMENT).to_pylist()
    for row, name in enumerate(names):
        if name is None or not 1 <= len(name) <= MOST_NAME:
            raise BadRequestError(f"row {row}: an instrument has 1 to {MOST_NAME} characters")
    return names  # type: ignore[return-value]


def _date(metadata: dict[bytes, bytes]) -> date | None:
    _refuse_unknown(metadata, {_DATE})
    text = metadata.get(_DATE)
    if text is None:
        return None
    try:
        return date.fromisoformat(text.decode("ascii"))
    except ValueError:
        raise BadRequestError(
            f"date: {excerpt(repr(text))} in the metadata is not a date; write it like 2018-02-07"
        ) from None


def _features(batch: pa.RecordBatch, instruments: Sequence[str], metadata: dict[bytes, bytes]) -> FeaturesGiven:
    _refuse_unknown(metadata, set())
    batch = batch.remove_column(batch.schema.get_field_index(INSTRUMENT))
    names = batch.schema.names
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(batch.to_tensor(null_to_nan=True).to_numpy(), dtype=np.float32)
    if np.isinf(matrix).any():
        _refuse_infinity(batch, names)
    return given_matrix("row {row}, column {name}", instruments, names, matrix)


def _refuse_infinity(batch: pa.RecordBatch, names: Sequence[str]) -> None:
    """Refuse infinite values; `given_matrix` reports numbers that are too large for 32 bits."""
    for name in names:
        if np.isinf(batch.column(name).to_numpy(zero_copy_only=False)).any():
            raise BadRequestError(f"column {excerpt(name)}: a value is infinite; send null where there is no value")


def _refuse_unknown(metadata: dict[bytes, bytes], known: set[bytes]) -> None:
    # The metadata that pandas and R add about their frames does not concern the rows.
    unknown = sorted(name.decode("utf-8", "replace") for name in metadata.keys() - known - {b"pandas", b"r"})
    if unknown:
        raise BadRequestError(f"the metadata {first_few(map(excerpt, unknown))} are unknown; leave them out")
