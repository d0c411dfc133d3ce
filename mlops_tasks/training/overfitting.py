"""Whether a training overfits: how far the training segment runs ahead of the validation segment, and where that leads."""

from typing import Literal

from pydantic import Field

from mlops_tasks.config import Section

Metric = Literal["loss", "ic", "rank_ic"]


class OverfittingConfig(Section):
    """When a training is thought to overfit, and what follows."""

    action: Literal["note", "stop"] = "note"
    """`note` records it; `stop` ends the training as well, with the best iteration so far."""
    metric: Metric = "loss"
    """Compared between train and validation segment; families that report it for both can be judged."""
    gap: float = Field(0.1, gt=0, lt=2)
    """Least lead of train over validation, as a share of the larger of both values, that is too much. Losses of scaled
    labels are near 1, so 0.1 is a lot; for `ic` and `rank_ic` 0.5 is a fitting value."""
    window: int | None = Field(None, ge=5)
    """Iterations over which trends are measured; None: the patience of early stopping, between 5 and 20."""
