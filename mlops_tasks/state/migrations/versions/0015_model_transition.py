"""The history of models; it begins with what gate, rollouts, deployments and approvals have recorded. Append-only."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0015"
down_revision = "0014"

TABLE = "model_transition"
WRITER = "migration"


def upgrade() -> None:
    """Create the table, fill it, and let nobody change or remove a row of it."""
    table = op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=True),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("replaced_version", sa.Integer(), nullable=True),
        sa.Column("replaced_after", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("sequence", name=f"uq_{TABLE}"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    for column in ("training_key", "model_version", "replaced_version"):
        op.create_index(op.f(f"ix_{TABLE}_{column}"), TABLE, [column])
    rows = list(_History(_facts()).rows())
    if rows:
        op.bulk_insert(table, rows)
    refuse_changes(TABLE)


def downgrade() -> None:
    """Remove the history; what it follows from stays in its own tables."""
    op.drop_table(TABLE)


def _facts() -> list[Any]:
    """Everything that was recorded about models, oldest first."""
    text, number, time = sa.String(), sa.Integer(), sa.DateTime(timezone=True)
    columns: dict[str, dict[str, Any]] = {
        "gate_decision": {"training_key": text, "decision": sa.JSON(), "recorded_at": time},
        "model_approval": {"training_key": text, "approved_by": text, "reason": text, "at": time},
        "rollout_step": {
            **{"training_key": text, "model_version": number, "state": text, "strategy": text, "reason": text},
            **{"asked_by": text, "began_at": time, "at": time},
        },
        "model_revocation": {"training_key": text, "revoked_by": text, "reason": text, "at": time},
        "deployment": {
            **{"training_key": text, "model_version": number, "state": text, "reason": text, "at": time},
            "proven_version": number,
        },
    }
    found = []
    for order, (name, types) in enumerate(columns.items()):
        table = sa.table(name, sa.column("id", number), *(sa.column(each, kind) for each, kind in types.items()))
        for row in op.get_bind().execute(sa.select(table).order_by(table.c.id)).mappings():
            at = row["recorded_at"] if name == "gate_decision" else row["at"]
            found.append((at, order, row["id"], name, row))
    return sorted(found, key=lambda fact: fact[:3])


class _History:
    """The transitions that follow from the facts: those of `mlops_tasks/state/`, as they were in this migration."""

    def __init__(self, facts: list[Any]) -> None:
        self.facts = facts
        named = [row for *_, name, row in facts if name in ("rollout_step", "deployment") and row["training_key"]]
        self.versions = {row["training_key"]: row["model_version"] for row in named}
        self.keys = {row["model_version"]: row["training_key"] for row in named}
        self.states: dict[Any, str] = {}
        """By version, or by training key where the version is not known."""
        self.revoked: set[str] = set()
        self.champion: int | None = None
        self.last: datetime | None = None
        self.sequence = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        for at, _, _, name, row in self.facts:
            self.last = at if self.last is None else max(at, self.last)
            yield from getattr(self, f"_{name}")(row)

    def _gate_decision(self, row: Any) -> Iterator[dict[str, Any]]:
        decision = row["decision"]
        if decision.get("decision") == "reject":
            reason = f"rule {decision.get('rule')}: {'; '.join(decision.get('reasons') or ())}"
            yield from self._move(row["training_key"], "rejected", "gate", reason)

    def _model_approval(self, row: Any) -> Iterator[dict[str, Any]]:
        self.revoked.discard(row["training_key"])
        if self._state(row["training_key"]) == "rejected":
            yield from self._move(row["training_key"], "challenger", row["approved_by"], row["reason"])

    def _model_revocation(self, row: Any) -> Iterator[dict[str, Any]]:
        self.revoked.add(row["training_key"])
        yield from self._move(row["training_key"], "rejected", row["revoked_by"], row["reason"])

    def _rollout_step(self, row: Any) -> Iterator[dict[str, Any]]:
        key, state = row["training_key"], row["state"]
        if state == "holding":
            yield from self._move(key, "canary", row["asked_by"], f"its {row['strategy']} rollout has begun")
        elif state == "rejected" and row["began_at"] is not None:
            yield from self._move(key, "rejected", WRITER, row["reason"])
        elif state in ("completed", "aborted") and self._state(key) == "canary":
            yield from self._move(key, "challenger", row["asked_by"], row["reason"])

    def _deployment(self, row: Any) -> Iterator[dict[str, Any]]:
        if row["state"] not in ("serving", "rolled_back", "restored"):
            return
        former, champion = self.champion, row["proven_version"]
        if row["state"] == "serving":
            champion = row["model_version"]
        if champion == former:
            return
        self.champion = champion
        leaves_as = "rejected" if self.keys.get(former) in self.revoked else "retired"
        if champion is None:
            self.states[former] = leaves_as
            yield self._row(former, "champion", leaves_as, WRITER, row["reason"])
            return
        before = self.states.get(champion, "challenger")
        self.states[champion] = "champion"
        made = self._row(champion, before, "champion", WRITER, row["reason"])
        if former is not None:
            self.states[former] = leaves_as
            made |= {"replaced_version": former, "replaced_after": leaves_as}
        yield made

    def _state(self, key: str) -> str:
        return self.states.get(self.versions.get(key, key), "challenger")

    def _move(self, key: str, to: str, by: str, reason: str) -> Iterator[dict[str, Any]]:
        before = self._state(key)
        if before in (to, "champion"):
            return
        self.states[self.versions.get(key, key)] = to
        yield self._row(self.versions.get(key, key), before, to, by, reason)

    def _row(self, model: Any, before: str, to: str, by: str, reason: str) -> dict[str, Any]:
        """A row of a model, which is a version, or a training key."""
        self.sequence += 1
        version = model if isinstance(model, int) else None
        content = {
            "sequence": self.sequence,
            "training_key": self.keys.get(version, "") if version is not None else model,
            "model_version": version,
            "before": before,
            "after": to,
            "by": by or WRITER,
            "reason": reason,
            "replaced_version": None,
            "replaced_after": "",
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return {**content, "at": self.last, "content_digest": digest, "recorded_at": datetime.now(UTC)}
