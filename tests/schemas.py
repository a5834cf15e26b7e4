"""The JSON Schemas, checked by an independent validator."""

from __future__ import annotations

import functools

from jsonschema import Draft202012Validator

from spoold.model.schema import Name, schema


@functools.cache
def validator(name: Name) -> Draft202012Validator:
    """Return the validator of requests or responses. Raise where the schema itself is invalid."""
    made = schema(name)
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def is_valid(name: Name, value: object) -> bool:
    """Tell whether the schema accepts a value."""
    return bool(validator(name).is_valid(value))
