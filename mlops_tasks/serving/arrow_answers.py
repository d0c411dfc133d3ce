"""Answers as Apache Arrow streams."""

import json

import pyarrow as pa

from mlops_tasks.columns import INSTRUMENT, SCORE
from mlops_tasks.serving.scored import Scored


def write_arrow(scored: Scored) -> bytes:
    """An answer as a stream: `instrument`, `score`; what the JSON says of all rows is the schema's metadata.

    The metadata `about` is a JSON object: the JSON answer without its scores.
    """
    about = scored.about()
    instruments, scores = scored.columns()
    arrays = [pa.array(instruments, pa.string()), pa.array(scores, pa.float64())]
    schema = pa.schema([(INSTRUMENT, pa.string()), (SCORE, pa.float64())], {"about": json.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content
