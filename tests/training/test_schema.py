"""The zoo's own check of a value gives the answers of the package jsonschema."""

from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.modeling.model_zoo.schema import fits

NUMBERS = st.integers(-4, 4) | st.sampled_from([-2.0, 0.0, 0.5, 1.0, 2.5, 3.0])
PLAIN = NUMBERS | st.booleans() | st.none() | st.sampled_from(["", "a", "ridge", "1"])
VALUES = PLAIN | st.lists(PLAIN, max_size=3)
TYPES = st.sampled_from(["integer", "number", "string", "boolean", "array", "null"])
LIMITS = {name: NUMBERS for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")}
FLAT = {"type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True), "enum": st.lists(VALUES, min_size=1)}
LENGTHS = {name: st.integers(0, 3) for name in ("minItems", "maxItems")}
ITEMS = st.fixed_dictionaries({}, optional={**FLAT, **LIMITS})
SCHEMAS = st.fixed_dictionaries({}, optional={**FLAT, **LIMITS, **LENGTHS, "items": ITEMS})


@settings(max_examples=500, deadline=None)
@given(SCHEMAS, VALUES)
def test_every_value_is_judged_as_by_the_library(schema: dict[str, Any], value: Any) -> None:
    """Types, words, limits, lengths and elements; 1.0 is an integer, and true is no number."""
    assert fits(schema, value) == jsonschema.Draft202012Validator(schema).is_valid(value)
