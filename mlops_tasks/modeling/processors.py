"""Feature processors: fitted on the training segment only, stored as numbers, applied alike in training and serving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

CLIP = 3.0
MAD_TO_STD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
EPS = 1e-12
BLOCK_VALUES = 1 << 16
"""Values that are processed at once: 256 KiB of float32 stay in the processor's cache from one step to the next."""


@dataclass(frozen=True)
class FittedProcessors:
    """Robust z-score with clipping at +-3, then NaN to 0; or no processing at all.

    The definition is Qlib's `RobustZScoreNorm(clip_outlier=True)` followed by `Fillna(0)`.

    Attributes
    ----------
    centre, scale
        Shape (features,): median and 1.4826 * MAD of the training segment. None: features pass unchanged, NaN
        included. A column without any value has NaN here and becomes 0.
    """

    centre: FloatArray | None = None
    scale: FloatArray | None = None

    @classmethod
    def fit(cls, names: Sequence[str], features: FloatArray) -> "FittedProcessors":
        """Fit the named processors on the training segment, shape (n, features)."""
        if not names:
            return cls()
        centre, scale = robust_centre_and_scale(features)
        return cls(centre, scale)

    def transform(self, features: FloatArray) -> FloatArray:
        """A copy processed row by row, or the matrix itself if there is nothing to do; float32, shape (n, features)."""
        if self.centre is None or self.scale is None:
            return features
        centre, scale = self.centre.astype(np.float32), self.scale.astype(np.float32)
        scaled: FloatArray = np.empty(features.shape, np.result_type(features, centre))
        rows = max(1, BLOCK_VALUES // max(1, features.shape[1]))
        for begin in range(0, len(scaled), rows):
            part = scaled[begin : begin + rows]
            np.subtract(features[begin : begin + rows], centre, out=part)
            part /= scale
            np.clip(part, -CLIP, CLIP, out=part)
            np.copyto(part, 0.0, where=np.isnan(part))
        return scaled

    def to_json(self) -> dict[str, Any]:
        """Plain lists; NaN as null."""
        if self.centre is None or self.scale is None:
            return {"kind": "none"}
        return {"kind": "robust_zscore_fill_zero", "centre": _plain(self.centre), "scale": _plain(self.scale)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "FittedProcessors":
        """The inverse of `to_json`."""
        if content["kind"] == "none":
            return cls()
        return cls(np.array(content["centre"], dtype=np.float64), np.array(content["scale"], dtype=np.float64))


def robust_centre_and_scale(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median and 1.4826 * MAD of each column, NaN ignored; NaN for a column without a value. Shapes (features,)."""
    centre, scale = np.full(features.shape[1], np.nan), np.full(features.shape[1], np.nan)
    for column in range(features.shape[1]):  # one column at a time: no second copy of the matrix
        values = features[:, column]
        values = values[~np.isnan(values)]
        if len(values):
            centre[column] = _median(values)
            scale[column] = (_median(np.abs(values - np.float32(centre[column]))) + EPS) * MAD_TO_STD
    return centre, scale


def _median(values: FloatArray) -> Any:
    """As `numpy.median`, NaN if a value is NaN, with one selection instead of three; rearranges the values."""
    half = len(values) // 2
    values.partition(half)
    if np.isnan(values[half:].max()):
        return np.nan
    return values[half] if len(values) % 2 else np.mean([values[:half].max(), values[half]], dtype=values.dtype)


def _plain(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
