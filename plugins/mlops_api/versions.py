"""Routes about registered versions: search, history, tags, and who was live."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException, Path, Query

from mlops_api.access import needs
from mlops_api.messages.versions import (
    OriginList,
    OriginsAsked,
    TagGiven,
    TenureList,
    TransitionList,
    Version,
    VersionList,
    VersionsAsked,
)
from mlops_api.service import NO_SUCH, registered, settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.roles import Right
from mlops_tasks.state.model_history import history_of, knows, live_at, live_on
from mlops_tasks.state.model_index import tag_version
from mlops_tasks.state.version_origins import OriginSearch, find_origins
from mlops_tasks.state.version_search import VersionSearch, metric_range, search_versions

router = APIRouter(prefix="/versions", tags=["versions"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@contextmanager
def _refused() -> Iterator[None]:
    """422 for what is asked for wrongly."""
    try:
        yield
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise HTTPException(422, "query: a condition on a tag or a metric is written as name=value, or name=low:high")
    return name, value


@router.get("", **needs(Right.SEE))
def search(asked: Annotated[VersionsAsked, Query()]) -> VersionList:
    """The registered versions that meet all conditions, sorted, the largest or newest first."""
    plain = asked.model_dump(exclude={"tag", "metric"})
    with _refused():
        ranges = tuple(metric_range(*_pair(each)) for each in asked.metric)
        wanted = VersionSearch(**plain, tags=dict(map(_pair, asked.tag)), metrics=ranges)
        found = search_versions(settings(), wanted)
    return VersionList(total=found.total, versions=[Version.of(each) for each in found.versions])


@router.get("/live", **needs(Right.SEE))
def live(day: date | None = None, at: datetime | None = None) -> TenureList:
    """Who was champion on a day (UTC), or at a time (UTC where it has no zone); default: now."""
    if day is not None and at is not None:
        raise HTTPException(422, "query: give day or at, not both")
    if day is not None:
        return TenureList.of(live_on(settings(), day))
    moment = at or datetime.now(UTC)
    found = live_at(settings(), moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    return TenureList.of([] if found is None else [found])


@router.get("/origins", **needs(Right.SEE))
def origins(asked: Annotated[OriginsAsked, Query()]) -> OriginList:
    """What the versions that meet all conditions were made of."""
    with _refused():
        return OriginList.of(find_origins(settings(), OriginSearch(**asked.model_dump())))


@router.get("/{version}/history", **needs(Right.SEE), responses=NO_SUCH)
def show_history(version: Number) -> TransitionList:
    """The states that a version has been in, oldest first."""
    if not knows(settings(), version):
        raise HTTPException(404, f"the history has no version {version}")
    return TransitionList.of(history_of(settings(), version))


@router.post("/{version}/tags", **needs(Right.TRAIN), responses=NO_SUCH)
def tag_a_version(version: Number, tag: TagGiven, user: GetUserDep) -> Version:
    """Give a version a tag, under the user's name; MLflow has it as `user.<name>` within moments."""
    with _refused():
        return Version.of(tag_version(settings(), registered(version), tag.name, tag.value, user.get_name()))
