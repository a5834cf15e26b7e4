"""The JSON Schemas in the hands of a validator that is not ours."""

from __future__ import annotations

import functools

from jsonschema import Draft202012Validator

from spoold.model.schema import Name, schema


@functools.cache
def validator(name: Name) -> Draft202012Validator:
    """Return the validator of requests or responses; raises where its schema is none."""
    made = schema(name)
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def is_valid(name: Name, value: object) -> bool:
    """Tell whether a value is what the schema says."""
    return bool(validator(name).is_valid(value))
