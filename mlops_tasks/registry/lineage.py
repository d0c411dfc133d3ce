"""LineageTracker: from a registered version back to the bars that it was made of."""

from dataclasses import asdict, dataclass
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.files import read_json
from mlops_tasks.registry.client import registry_errors
from mlops_tasks.registry.models import get_run_id, get_tags


@dataclass(frozen=True)
class Lineage:
    """The chain behind one version."""

    version: int
    digest: str
    run_id: str
    training_key: str
    model: str
    feature_version: str
    data_version: str
    source: str | None
    """Where the vintage's bars came from; None when the vintage is no longer here."""

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return asdict(self)


class LineageTracker:
    """Reads lineage from the registry's tags and the vintage's manifest."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @registry_errors
    def trace(self, version: int) -> Lineage:
        """The lineage of a version; RegistryError when there is no such version."""
        tags = get_tags(self.settings, version)
        return Lineage(
            version=version,
            digest=tags["digest"],
            run_id=get_run_id(self.settings, version),
            training_key=tags["training_key"],
            model=tags["model"],
            feature_version=tags["feature_version"],
            data_version=tags["data_version"],
            source=vintage_source(self.settings, tags["data_version"]),
        )


def vintage_source(settings: Settings, data_version: str) -> str | None:
    """The source that a vintage's manifest names, or None."""
    manifest = settings.data_dir / "vintages" / data_version / "manifest.json"
    if not manifest.is_file():
        return None
    source = read_json(manifest).get("source")
    return None if source is None else str(source)
