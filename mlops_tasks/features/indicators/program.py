"""From series to a tape: each distinct series once, with a row of the buffer and its places in the state."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlops_tasks.features.indicators.graph import INITIAL_STATE, SeriesNode, walk
from mlops_tasks.features.indicators.kernels import Op, Tape
from mlops_tasks.features.kernels import FloatArray


@dataclass(frozen=True)
class IndicatorProgram:
    """Series made ready to run.

    Attributes
    ----------
    columns
        Names of the results, in their order.
    fields
        Bar fields that are read, in the order of the tape.
    initial_state
        float64 (places,): the state of an instrument before its first bar.
    """

    columns: tuple[str, ...]
    fields: tuple[str, ...]
    tape: Tape
    initial_state: FloatArray


def make_program(outputs: Mapping[str, SeriesNode]) -> IndicatorProgram:
    """Lay out the series that `outputs` are made of."""
    nodes = sorted(walk(outputs.values()), key=lambda node: node.op != Op.FIELD)
    rows = {node: row for row, node in enumerate(nodes)}
    state: list[float] = []
    histories = []
    for node, bars in _earlier_bars(nodes).items():
        histories.append((rows[node], bars, len(state)))
        state += [np.nan] * bars
    steps, constants = [], []
    for node in nodes:
        if node.op not in (Op.FIELD, Op.LITERAL):
            inputs = ([rows[part] for part in node.inputs] + [0, 0])[:3]
            steps.append((node.op, rows[node], *inputs, node.window, len(state)))
            constants.append((*node.constants, 0.0, 0.0, 0.0)[:3])
            state += INITIAL_STATE.get(node.op, ())
    tape = Tape(
        steps=np.array(steps, np.int64).reshape(-1, 7),
        constants=np.array(constants, np.float64).reshape(-1, 3),
        literals=np.array([node.constants[0] if node.op == Op.LITERAL else np.nan for node in nodes]),
        histories=np.array(histories, np.int64).reshape(-1, 3),
        outputs=np.array([rows[node] for node in outputs.values()], np.int64),
    )
    fields = tuple(node.field for node in nodes if node.op == Op.FIELD)
    return IndicatorProgram(tuple(outputs), fields, tape, np.array(state, np.float64))


def _earlier_bars(nodes: list[SeriesNode]) -> dict[SeriesNode, int]:
    """How many earlier bars of a series its windows and lags reach back to."""
    bars: dict[SeriesNode, int] = {}
    for node in nodes:
        if node.history:
            series = node.inputs[0]
            bars[series] = max(bars.get(series, 0), node.history)
    return bars
