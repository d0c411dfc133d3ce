"""What a stage's task tells an OpenLineage service: the versions that it read, and those that it made.

Airflow's provider asks for it where `[openlineage] transport` is set (docs/lineage.md). Every name is a key of the
stage's arguments or its result that identifies content or a record; nothing is read for it.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.providers.openlineage.extractors.base import OperatorLineage
from openlineage.client.event_v2 import Dataset

KINDS = {
    "staging": "staging",
    "data_version": "vintage",
    "feature_version": "features",
    "training_key": "training",
    "run_id": "run",
    "study": "study",
    "version": "model_version",
}
"""By key of an argument or a result: the kind of what it identifies, the first part of the data set's name."""


def emitted_lineage(arguments: Mapping[str, Any], result: Mapping[str, Any]) -> OperatorLineage:
    """The data sets of one execution of a stage.

    Parameters
    ----------
    arguments
        Of the stage; results of earlier stages among them are searched too.
    result
        Empty where the stage failed. What the arguments named already is no output.
    """
    read = dict.fromkeys(_names(arguments))
    made = [name for name in dict.fromkeys(_names(result)) if name not in read]
    return OperatorLineage(inputs=list(map(_dataset, read)), outputs=list(map(_dataset, made)))


def _dataset(name: str) -> Dataset:
    """In a namespace of this operation's own: numbers of model versions begin at 1 in each."""
    return Dataset(namespace=f"alphaops://{urlsplit(conf.get('api', 'base_url', fallback='')).netloc}", name=name)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key in KINDS and isinstance(each, str | int):
                yield f"{KINDS[key]}/{each}"
            yield from _names(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _names(each)
