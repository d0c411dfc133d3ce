"""Approvals: a person lets a vintage follow the one in use although the policy blocks it. Append-only.

`data/approvals/<old>_<new>/<time>.json` says who, when and why; an approval holds for this pair of versions alone.
"""

import getpass
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_version, load_vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.files import folder_lock, plain_name, read_json, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Approval:
    """One decision of a person."""

    old: str
    new: str
    reason: str
    by: str
    at: str
    """ISO time, UTC."""


def approve(settings: Settings, data_version: str, reason: str, by: str | None = None) -> Approval:
    """Let a vintage follow the one in use. Its next sync then passes.

    Parameters
    ----------
    data_version
        A vintage that is on disk and not yet in use.
    reason
        Why; not empty.
    by
        Who; default: the system's user.

    Raises
    ------
    StoreError
        No vintage is in use, this one is, or there is no such vintage; or the reason is empty.
    """
    if not reason.strip():
        raise StoreError(f"approval of {data_version}: the reason is empty; say why the vintage is right")
    load_vintage(settings, data_version)
    old = current_version(settings)
    if old is None:
        raise StoreError(
            f"{data_version}: no vintage is in use yet, so there is nothing to approve; run sync_market_data"
        )
    if old == data_version:
        raise StoreError(f"{data_version} is in use already; approve the version that the sync rejected")
    now = datetime.now(UTC)
    approval = Approval(old, data_version, reason.strip(), by or getpass.getuser(), now.isoformat(timespec="seconds"))
    folder = settings.data_dir / "approvals" / f"{old}_{data_version}"
    with folder_lock(settings.data_dir):
        write_json(folder / f"{now:%Y%m%dT%H%M%S%fZ}.json", asdict(approval))
    log.info("%s may follow %s: %s (%s)", data_version, old, approval.reason, approval.by)
    return approval


def find_approval(settings: Settings, old: str, new: str) -> Approval | None:
    """The newest approval of a pair, or None."""
    found = approvals(settings, "_".join(plain_name(version, "data version") for version in (old, new)))
    return found[-1] if found else None


def approvals(settings: Settings, pair: str = "*") -> list[Approval]:
    """All approvals, or those of a pair (`<old>_<new>`), the oldest first."""
    paths = (settings.data_dir / "approvals").glob(f"{pair}/[!.]*.json")
    return [Approval(**read_json(path)) for path in sorted(paths, key=lambda path: path.name)]
