"""What the API says of vintages, and of what changed between two of them."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mlops_tasks.config import VintageDecision
from mlops_tasks.data.revisions.approvals import Approval
from mlops_tasks.data.revisions.changes import CLASSES
from mlops_tasks.data.revisions.stored import StoredDiff
from mlops_tasks.data.vintage_list import VintageDetail

VERSION = r"^[0-9a-f]{16}$"
"""A data version, and the name of a validation."""
_PLAIN = r"^[^\x00]*$"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it is blank")
    return text


Reason = Annotated[str, AfterValidator(_not_blank), Field(min_length=1, max_length=2000, pattern=_PLAIN)]
Named = Annotated[str, Field(min_length=1, max_length=200, pattern=_PLAIN)]


class _Read(BaseModel):
    """Is read from one of the library's own."""

    model_config = ConfigDict(from_attributes=True)


class Vintage(_Read):
    """A vintage. What its manifest says is null while it is in DVC only."""

    data_version: str
    in_use: bool
    on_disk: bool
    in_dvc: bool
    created: datetime
    rows: int | None
    instruments: int | None
    first_date: date | None
    last_date: date | None
    source: str | None = Field(description="The last part of the name of what it was read from.")
    received: int | None
    quarantined: int | None


class VintageList(BaseModel):
    """Some vintages, the newest first."""

    total: int
    vintages: list[Vintage]


class RawInput(_Read):
    """A file, or an answer of a database or vendor, that a vintage was read from."""

    name: str
    sha256: str
    rows: int


class YearOfBars(BaseModel):
    """The bars of a calendar year."""

    year: int
    rows: int


class VintageApproval(_Read):
    """Lets one vintage follow another one although the policy blocks it."""

    old: str
    new: str
    reason: str
    by: str
    at: datetime

    @classmethod
    def of(cls, approval: Approval | None) -> Self | None:
        """From the library's own; None: there is none."""
        return None if approval is None else cls.model_validate(approval)


class VintageShown(BaseModel):
    """A vintage, and what is recorded about it."""

    vintage: Vintage
    years: list[YearOfBars]
    inputs: list[RawInput]
    approved: list[VintageApproval]

    @classmethod
    def of(cls, found: VintageDetail) -> Self:
        """From the library's own."""
        return cls(
            vintage=Vintage.model_validate(found.vintage),
            years=[YearOfBars(year=int(year), rows=rows) for year, rows in found.years.items()],
            inputs=[RawInput.model_validate(each) for each in found.inputs],
            approved=[VintageApproval.model_validate(each) for each in found.approved],
        )


class PolicyReason(_Read):
    """What a rule of the policy found."""

    rule: str
    decision: VintageDecision
    message: str


class DiffSummary(BaseModel):
    """A diff of two vintages, in short."""

    old: str
    new: str
    made_at: datetime
    decision: VintageDecision = Field(description="Of the policy, as the settings are now.")
    is_waiting: bool = Field(description="Only an approval would let the new vintage follow the old one.")
    common: int = Field(description="Rows that both have.")
    added: int
    removed: int
    appended: int
    restated: int

    @classmethod
    def of(cls, found: StoredDiff) -> Self:
        """From the library's own."""
        return cls(**_short(found))


def _short(found: StoredDiff) -> dict[str, Any]:
    rows = found.summary["rows"]
    return {
        **{name: getattr(found, name) for name in ("old", "new", "made_at", "is_waiting")},
        **{name: rows[name] for name in ("common", "added", "removed", "appended")},
        "decision": found.verdict.decision,
        "restated": found.restated_rows,
    }


class DiffList(BaseModel):
    """Some diffs, the newest first."""

    total: int
    diffs: list[DiffSummary]


class ClassOfChange(BaseModel):
    """Changes of one class."""

    kind: str
    meaning: str
    cells: int
    rows: int
    instruments: int
    first_date: date | None
    last_date: date | None

    @classmethod
    def of(cls, kind: str, info: Mapping[str, Any]) -> Self:
        """From the summary of a diff."""
        return cls(kind=kind, meaning=CLASSES[kind], **{name: info[name] for name in _CLASS_FIELDS})


_CLASS_FIELDS = ("cells", "rows", "instruments", "first_date", "last_date")


class LargestChange(BaseModel):
    """One of the cells that changed most."""

    instrument: str
    field: str
    date: date
    old: float
    new: float
    relative_change: float


class DiffShown(DiffSummary):
    """A diff of two vintages."""

    same_market: bool = Field(description="False: so few instruments are common that no bar was compared.")
    reasons: list[PolicyReason] = Field(description="The severest first.")
    approval: VintageApproval | None
    changes: list[ClassOfChange] = Field(description="Classes with at least one cell.")
    largest: list[LargestChange]

    @classmethod
    def of(cls, found: StoredDiff) -> Self:
        """From the library's own."""
        summary = found.summary
        kinds = [ClassOfChange.of(kind, info) for kind, info in summary["changes"].items() if info["cells"]]
        cells = [cell for group in summary["largest"].values() for cell in group]
        return cls(
            **_short(found),
            same_market=summary["same_market"],
            reasons=[PolicyReason.model_validate(each) for each in found.verdict.reasons],
            approval=VintageApproval.of(found.approval),
            changes=kinds,
            largest=[LargestChange.model_validate(cell) for cell in cells],
        )


class ChangedCell(_Read):
    """A cell of the past that differs."""

    instrument: str
    field: str
    date: date
    old: float | None
    new: float | None
    relative_change: float | None
    kind: str


class ChangedCells(BaseModel):
    """Some cells, in the order of instruments, dates and fields."""

    total: int
    cells: list[ChangedCell]


class SourceList(BaseModel):
    """The names that a sync can be given."""

    configured: str = Field(description="What a sync reads if it is given none; the last part of its name.")
    sources: list[str]


class SyncAsked(BaseModel):
    """A sync of another source than the configured one."""

    model_config = ConfigDict(extra="forbid")

    source: Named | None = Field(None, description="One of `GET data/sources`; null: the configured one.")


class ApprovalAsked(SyncAsked):
    """Lets a blocked vintage follow the one in use: the sync runs again, and must yield exactly this version."""

    data_version: str = Field(pattern=VERSION)
    reason: Reason
