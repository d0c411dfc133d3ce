"""The content of model.json, an artefact's manifest: what scores, and what it was trained on."""

from typing import Any, NotRequired, TypedDict


class Origin(TypedDict):
    """The training that an artefact comes from; one that is only measured and thrown away has none."""

    training_key: NotRequired[str]
    model: NotRequired[str]
    feature_set: NotRequired[str]
    feature_version: NotRequired[str]
    data_version: NotRequired[str]
    horizon: NotRequired[int]
    segments: NotRequired[dict[str, tuple[str, str]]]
    """Segment to its first and last day, ISO dates."""
    seed: NotRequired[int]


class ArtefactManifest(Origin):
    """The content of model.json."""

    family: str
    class_path: NotRequired[str | None]
    window: NotRequired[int]
    """Trading days that the model sees at once; absent: 1."""
    feature_names: list[str]
    """Columns that the model needs, in its own order."""
    own_source: NotRequired[str]
    """Digest of the code of a user's own class when it was trained; absent for other classes."""
    environment: NotRequired[dict[str, Any]]
    """What it was made by: an `Environment` as JSON (`environment.py`); absent in earlier versions' artefacts."""
    files: NotRequired[dict[str, str]]
    """Name to SHA-256 of every file except the manifest and its signature."""
