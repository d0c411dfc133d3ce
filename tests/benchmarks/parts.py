"""Timing that tells 2% apart on a machine whose speed changes by 20%.

A machine that is shared makes two runs of the same work differ by a fifth. But the parts of a training, its rounds, are
the same work in each repetition: a side's time is the sum over the parts of the fastest of the repetitions.

What disturbs a part in some of the repetitions only is not seen. The whole fits' times are quoted beside for that.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np


class PartsClock:
    """Moments at which parts ended, since it was made; seconds in all, those of all threads' processors too."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._moments = [time.perf_counter()]

    def mark(self) -> None:
        """A part has ended."""
        self._moments.append(time.perf_counter())

    def read(self) -> dict[str, Any]:
        """The last part has ended too."""
        self.mark()
        parts, cpu_seconds = np.diff(self._moments), time.process_time() - self._cpu
        return {"parts": parts.tolist(), "seconds": float(parts.sum()), "cpu_seconds": cpu_seconds}


def fastest_parts(repetitions: Sequence[dict[str, Any]], parts: int) -> float:
    """Seconds of what `PartsClock.read` gave for each repetition, which all had so many parts."""
    seconds = np.array([each["parts"] for each in repetitions])
    assert seconds.shape == (len(repetitions), parts), f"{seconds.shape} for {len(repetitions)} times {parts} parts"
    return float(seconds.min(axis=0).sum())


def compared(ours: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]], parts: int) -> dict[str, Any]:
    """Of a result: both sides' seconds, `ratio` peer / ours, and the same of the fastest whole fits."""
    seconds = {"ours": fastest_parts(ours, parts), "peer": fastest_parts(peer, parts)}
    whole, cpu = (_fastest(peer, name) / _fastest(ours, name) for name in ("seconds", "cpu_seconds"))
    return {
        **{name: round(value, 3) for name, value in seconds.items()},
        "unit": "s",
        "ratio": round(seconds["peer"] / seconds["ours"], 4),
        "whole_ratio": round(whole, 4),
        "cpu_ratio": round(cpu, 4),
    }


def _fastest(repetitions: Sequence[dict[str, Any]], name: str) -> float:
    return float(min(each[name] for each in repetitions))
