"""The pages of registered versions: their list, one of them, and several side by side."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mlops_api.access import SEE, may
from mlops_api.messages.version_details import VersionComparison
from mlops_api.service import registered, settings
from mlops_api.version_details import MOST_COMPARED, ListedVersion
from mlops_api.versions import Number
from mlops_tasks.errors import ConfigError
from mlops_tasks.provenance.known_version import known_version, plot_of
from mlops_tasks.reports import PNG, Report, ReportKind, reports_of_version
from mlops_tasks.roles import Right
from mlops_tasks.state.model_history import history_of, knows
from mlops_tasks.state.model_index import OWN_TAG, find_version
from mlops_tasks.state.replays import replays
from mlops_tasks.state.version_search import (
    METRIC,
    VersionSearch,
    known_families,
    known_metrics,
    metric_range,
    search_versions,
)
from mlops_tasks.states import ModelState, Strategy
from mlops_tasks.training.events import runs
from mlops_ui.intervals import Scale
from mlops_ui.rendering import render

router = APIRouter(prefix="/models", dependencies=SEE, default_response_class=HTMLResponse)

SIZE = 50
"""Versions of a page."""
LATEST_RUNS = 20
"""Trainings among which those are looked for that are under way."""
SHOWN_METRICS: Mapping[str, str] = {
    "valid_rank_ic_mean": "Rank IC, valid",
    "test_rank_ic_mean": "Rank IC, test",
    "test_ic_mean": "IC, test",
    "test_information_ratio": "IR, test",
}
"""Metrics that the list shows, with their headings; the search takes any."""
REPORTS = (ReportKind.EXPLANATION, ReportKind.COMPARISON, ReportKind.DRIFT)
SHOWN_REPORTS, SHOWN_REPLAYS = 5, 20

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


class VersionsShown(BaseModel):
    """What the address of the list asks for; empty: no condition, as a form sends it."""

    model_config = ConfigDict(frozen=True)

    text: Text = ""
    family: Text = ""
    state: Annotated[ModelState | None, BeforeValidator(lambda given: given or None)] = None
    data_version: Text = ""
    tag: Text = ""
    metric: Text = ""
    low: Text = ""
    high: Text = ""
    sort: Text = "version"
    ascending: bool = False
    page: int = Field(1, ge=1, le=10**6)

    @property
    def search(self) -> VersionSearch:
        """What is searched for.

        Raises
        ------
        ConfigError
            The ends of a metric are no numbers.
        """
        name, _, value = self.tag.partition("=")
        bounds = f"{self.low}:{self.high}"
        return VersionSearch(
            text=self.text,
            tags={name: value} if self.tag else {},
            family=self.family or None,
            state=self.state,
            data_version=self.data_version or None,
            metrics=(metric_range(self.metric, bounds),) if self.metric and bounds != ":" else (),
            sort=self.sort,
            ascending=self.ascending,
            page=self.page,
            size=SIZE,
        )

    def address(self, **changes: Any) -> str:
        """The query of the list with changes, from its first page on."""
        wanted = {**self.model_dump(mode="json"), "page": 1, **changes}
        return "?" + urlencode({name: value for name, value in wanted.items() if value != _DEFAULTS[name]})

    def sorted_by(self, sort: str) -> str:
        """The query of the list in another order; the other way round where it has that order."""
        return self.address(sort=sort, ascending=self.sort == sort and not self.ascending)


_DEFAULTS = VersionsShown().model_dump(mode="json")


@router.get("")
def show_versions(request: Request, asked: Annotated[VersionsShown, Query()]) -> str:
    """The registered versions that meet all conditions."""
    try:
        found = search_versions(settings(), asked.search)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None
    return render(
        request,
        "models.html",
        asked=asked,
        found=found,
        pages=-(-found.total // SIZE),
        columns=SHOWN_METRICS,
        by_metric=METRIC,
        own=OWN_TAG,
        families=known_families(settings()),
        metrics=known_metrics(settings()),
        states=[*ModelState],
        training=[each for each in runs(settings(), LATEST_RUNS) if not each.ending],
    )


@router.get("/compare")
def compare(
    request: Request, version: Annotated[list[ListedVersion], Query(min_length=1, max_length=MOST_COMPARED)]
) -> str:
    """Versions side by side; a form may send a single one."""
    numbers = list(dict.fromkeys(version))
    found = VersionComparison.of([find_version(settings(), registered(each)) for each in numbers])
    rows = [(each.name, Scale.over(each.values), each.values) for each in found.metrics]
    return render(request, "compare.html", versions=found.versions, rows=rows, own=OWN_TAG)


@router.get("/{version}")
def show_version(request: Request, version: Number, user: GetUserDep) -> str:
    """One version: its state, what it was made of, what moves it, and what can be done with it."""
    known = known_version(settings(), registered(version))
    replayed = replays(settings(), version)
    return render(
        request,
        "version.html",
        known=known,
        history=history_of(settings(), version) if knows(settings(), version) else [],
        reports=[(kind, _reports(kind, version)) for kind in REPORTS],
        replays=replayed[:SHOWN_REPLAYS],
        replayed=len(replayed),
        own=OWN_TAG,
        strategies=[*Strategy],
        strategy=settings().deployment.strategy,
        operates=may(user, Right.OPERATE),
        commands=may(user, Right.TRAIN),
    )


@router.get("/{version}/plots/{name}")
def show_plot(version: Number, name: str) -> FileResponse:
    """A picture of a version's evaluation."""
    path = plot_of(settings(), registered(version), name)
    if path is None:
        raise HTTPException(404, f"version {version} has no such plot; its page shows those that it has")
    return FileResponse(path, media_type=PNG)


def _reports(kind: ReportKind, version: int) -> Sequence[Report]:
    return reports_of_version(settings(), kind, version, SHOWN_REPORTS)
