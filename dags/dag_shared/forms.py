"""Fields that several forms have; those about models are made from the zoo."""

import json
from collections.abc import Mapping, Sequence

from airflow.sdk import Param

from dag_shared.default_args import SETTINGS
from mlops_tasks.training.model_zoo.forms import (
    Field,
    advanced_fields,
    basic_fields,
    overrides_schema,
    searched_text,
    stopping_schema,
    trainable_models,
    value_text,
)
from mlops_tasks.training.model_zoo.schema import allowed

SEGMENT_FORMAT = r"^\d{4}-\d{2}-\d{2}:\d{4}-\d{2}-\d{2}$"

MODELS = {model["name"]: model for model in trainable_models(SETTINGS)}


def segment_param(title: str) -> Param:
    """A date range `first:last`; empty for the rolling default."""
    return Param(
        None,
        type=["null", "string"],
        pattern=SEGMENT_FORMAT,
        title=title,
        section="Segments",
        description_md="`first:last`, e.g. `2017-01-01:2020-08-31`. Give all three, or none for rolling 60/20/20.",
    )


def models_text() -> str:
    """Each model with the scenarios that it is recommended for, as Markdown."""
    return "\n".join(
        f"* `{name}`: {model['description']} {' '.join(model['recommended_for'])}" for name, model in MODELS.items()
    )


def searched_fields_text() -> str:
    """What a search varies of each model, as Markdown."""
    lines = []
    for name, model in MODELS.items():
        spans = {field["name"]: searched_text(field) for field in model["hyperparameters"]}
        lines.append(f"* **{name}**: " + "; ".join(f"{field} {span}" for field, span in spans.items() if span))
    return "\n".join(lines)


def hyperparameters_param() -> Param:
    """Overrides of the hyper-parameters that a person looks at first, by model."""
    fields = {name: basic_fields(model) for name, model in MODELS.items()}
    return _overrides_param("Hyper-parameters", "Hyper-parameters", fields)


def advanced_hyperparameters_param() -> Param:
    """The same for the others, in a section of their own."""
    fields = {name: advanced_fields(model) for name, model in MODELS.items()}
    return _overrides_param("Advanced hyper-parameters", "Advanced", fields)


def stopping_param() -> Param:
    """Overrides of early stopping and of the overfitting detector, by model."""
    entries = {name: {key: model["stopping"][key] for key in ("metric", "patience")} for name, model in MODELS.items()}
    lines = [f"* **{name}**: `{json.dumps(entry)}`" for name, entry in entries.items()]
    text = (
        "When a training that goes in iterations ends: `metric` (loss, ic, rank_ic) of the validation segment, "
        "`patience` in iterations, `min_delta`, and `overfitting` (`action` note or stop, `metric`, `gap`, `window`). "
        "As it is:\n"
    )
    return Param(
        {},
        title="Early stopping",
        section="Advanced",
        description_md="\n".join([text, *lines]),
        **stopping_schema(list(MODELS)),
    )


def machine_params(owner: str) -> dict[str, Param]:
    """How a run's trainings share the machine with others."""
    return {
        "owner": Param(
            owner,
            type="string",
            pattern=r"^[\w.@-]{1,64}$",
            title="Owner",
            section="Machine",
            description_md="Owners share the machine by `training.owner_weights`.",
        ),
        "priority": Param(
            0,
            type="integer",
            minimum=-100,
            maximum=100,
            title="Priority",
            section="Machine",
            description_md="Of the owner's trainings that wait, a higher one goes first.",
        ),
    }


def _overrides_param(title: str, section: str, fields_of: Mapping[str, Sequence[Field]]) -> Param:
    model, fields = next((model, fields) for model, fields in fields_of.items() if fields)
    example = json.dumps({model: {fields[0]["name"]: fields[0]["default"]}})
    intro = f"What is to differ from the defaults, e.g. `{example}`. Defaults, and what is allowed:\n"
    lines = [f"* **{model}**: {'; '.join(map(_text, fields))}" for model, fields in fields_of.items() if fields]
    return Param(
        {}, title=title, section=section, description_md="\n".join([intro, *lines]), **overrides_schema(fields_of)
    )


def _text(field: Field) -> str:
    return f"{field['name']} {value_text(field['default'])} ({allowed(field)})"
