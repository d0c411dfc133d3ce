"""Keys of the scoring service's clients, on SQLite and on PostgreSQL."""

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.scoring_keys import KeyRequest, client_keys, make_key, parse_key, revoke_keys
from mlops_tasks.state.tables import ScoringKey, now
from mlops_tasks.states import Scope
from tests.postgres import DATABASES, settings_on


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def wanted(name: str = "desk", days: float | None = None, per_minute: int = 60, *scopes: Scope) -> KeyRequest:
    return KeyRequest(
        name, frozenset(scopes or {Scope.SCORE}), per_minute, None if days is None else timedelta(days=days)
    )


def test_a_key_is_known_by_its_digest_alone(settings: Settings) -> None:
    """What the database holds is no key; the key that was shown fits, another does not."""
    text, made = make_key(settings, wanted("desk", 30, 60, Scope.READ, Scope.SCORE), "ann")
    parsed = parse_key(text)
    assert parsed is not None and parsed[0] == made.key_id
    (known,) = client_keys(settings)
    assert known == made and known.scopes == {Scope.READ, Scope.SCORE} and known.made_by == "ann"
    assert known.fits(parsed[1]) and not known.fits(parsed[1][:-1]) and not known.fits("")
    assert known.expires_at is not None and timedelta(29) < known.expires_at - now() <= timedelta(30)
    with reading(settings) as active:
        kept = " ".join(str(value) for value in active.execute(sa.select(ScoringKey.__table__)).one())
    assert parsed[1] not in kept


def test_two_keys_of_a_name_are_valid_at_once_and_no_third(settings: Settings) -> None:
    """One that expired or was revoked makes room; other names have their own."""
    first, second = (make_key(settings, wanted(), "ann")[1] for _ in range(2))
    with pytest.raises(ConfigError, match=f"desk has 2 valid keys.*--id {first.key_id}"):
        make_key(settings, wanted(), "ann")
    make_key(settings, wanted("other"), "ann")
    assert [each.key_id for each in revoke_keys(settings, "desk", first.key_id, "moved", "bob")] == [first.key_id]
    third = make_key(settings, wanted("desk", 1e-9), "ann")[1]
    fourth = make_key(settings, wanted(), "ann")[1]
    standings = {each.key_id: each.standing(now()) for each in client_keys(settings) if each.name == "desk"}
    assert [standings[each.key_id] for each in (first, second, third, fourth)] == [
        "revoked",
        "valid",
        "expired",
        "valid",
    ]


def test_what_is_no_key_or_no_name_is_refused(settings: Settings) -> None:
    """The error says what to do; a revocation is for good, has a reason, and cannot be taken back."""
    for name in ("", "admin", "Ann", "a b", "a" * 33, "-a", "a\n"):
        with pytest.raises(ConfigError, match="not a valid key name"):
            make_key(settings, wanted(name), "ann")
    with pytest.raises(ConfigError, match="needs a scope"):
        make_key(settings, KeyRequest("desk", (), 1), "ann")
    with pytest.raises(ConfigError, match="at least one"):
        make_key(settings, wanted("desk", None, 0), "ann")
    with pytest.raises(ConfigError, match="a positive time"):
        make_key(settings, wanted("desk", 0), "ann")
    made = make_key(settings, wanted(), "ann")[1]
    with pytest.raises(StoreError, match=r"no unrevoked key of '?other"):
        revoke_keys(settings, "other", made.key_id, "x", "bob")
    with pytest.raises(ConfigError, match="give the reason"):
        revoke_keys(settings, "desk", None, " ", "bob")
    revoke_keys(settings, "desk", None, "seen", "bob")
    with pytest.raises(StoreError, match="no unrevoked key"):
        revoke_keys(settings, "desk", None, "seen", "bob")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), session(settings) as active:
        active.execute(sa.text("DELETE FROM scoring_key_revocation"))


def test_a_scope_of_a_newer_release_opens_nothing_and_hides_no_key(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is listed with those that are known here, and can be revoked; the log says it once."""
    made, newer = make_key(settings, wanted(), "ann")[1], secrets.token_hex(6)
    with session(settings) as active:
        columns = [each.name for each in ScoringKey.__table__.columns]
        changed = {"id": "900", "key_id": f"'{newer}'", "scopes": "'read write_all'"}
        picked = ", ".join(changed.get(name, name) for name in columns)
        active.execute(sa.text(f"INSERT INTO scoring_key ({', '.join(columns)}) SELECT {picked} FROM scoring_key"))
    known = {each.key_id: each.scopes for each in (*client_keys(settings), *client_keys(settings))}
    assert known == {made.key_id: {Scope.SCORE}, newer: {Scope.READ}}
    assert caplog.text.count("write_all") == 1
    assert [each.key_id for each in revoke_keys(settings, "desk", newer, "unknown", "bob")] == [newer]


@pytest.mark.parametrize("text", ["", "alphaops", "alphaops_", "alphaops_a_", "alphaops__b", "other_a_b", "a_b_c"])
def test_what_cannot_be_a_key(text: str) -> None:
    """It is not looked up."""
    assert parse_key(text) is None
