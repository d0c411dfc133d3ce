"""Whether a vintage may follow the one in use: diff, policy and approvals brought together."""

import logging
from dataclasses import dataclass
from typing import Any

from mlops_tasks.config import Settings, VintageDecision
from mlops_tasks.data.revisions.approvals import Approval, find_approval
from mlops_tasks.data.revisions.diff import diff_path, diff_vintages, read_diff
from mlops_tasks.data.revisions.policy import Reason, Verdict, judge
from mlops_tasks.data.snapshots import checkout_vintage
from mlops_tasks.data.vintages import current_version
from mlops_tasks.errors import StoreError
from mlops_tasks.files import plain_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acceptance:
    """What was concluded about a vintage."""

    data_version: str
    old: str | None
    """The version in use that it was compared with; None when there is none, or it is this one."""
    verdict: Verdict
    approval: Approval | None = None
    rows: dict[str, int] | None = None
    path: str | None = None
    """The diff's folder, relative to home."""

    @property
    def decision(self) -> VintageDecision:
        """The decision of the verdict, or `warn` where a person approved what it blocks."""
        return "warn" if self.approval and self.verdict.decision == "block" else self.verdict.decision

    @property
    def text(self) -> str:
        """The message for a person."""
        head = f"vintage {self.data_version} against {self.old}, which is in use:\n  "
        tail = "" if self.approval is None else f"\n  approved by {self.approval.by}: {self.approval.reason}"
        return head + self.verdict.text(self.data_version) + tail

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return {
            "data_version": self.data_version,
            "compared_with": self.old,
            "decision": self.decision,
            "reasons": [f"{reason.rule}: {reason.message}" for reason in self.verdict.reasons],
            "approved_by": None if self.approval is None else self.approval.by,
            "counts": self.rows,
            "diff": self.path,
        }


def assess(settings: Settings, data_version: str) -> Acceptance:
    """Judge a vintage against the one in use. The diff is made once and kept, while the policy is applied every time.

    Raises
    ------
    StoreError
        The vintage is not on disk.
    """
    plain_name(data_version, "data version")
    old = current_version(settings)
    if old is None or old == data_version:
        return Acceptance(data_version, None, Verdict.of([]))
    approval = find_approval(settings, old, data_version)
    try:
        checkout_vintage(settings, old)
    except StoreError as error:
        reason = Reason("comparable", "block", f"the vintage in use cannot be compared with: {error}")
        return Acceptance(data_version, old, Verdict.of([reason]), approval)
    summary = read_diff(settings, old, data_version) or diff_vintages(settings, old, data_version).summary()
    verdict = judge(summary, settings.vintage_policy)
    path = settings.relative(diff_path(settings, old, data_version))
    counts = {**summary["rows"], "restated": summary["restated_rows"]}
    return Acceptance(data_version, old, verdict, approval, counts, path)
