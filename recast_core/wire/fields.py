"""Between a dataclass and the message whose fields have its names, so that one more is one line."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def write_fields(values: DataclassInstance, message: Message) -> None:
    """Set the field of ``message`` for each of ``values``.

    A choice by name is a number where the message has an enumeration, whose names begin with the
    field's; else a text, which is left out where it is the usual one.
    """
    for field in fields(values):
        value, described = getattr(values, field.name), _described(message, field.name)
        if described.enum_type is not None:
            name = f"{field.name}_{value}".upper().replace("-", "_")
            value = described.enum_type.values_by_name[name].number
        elif isinstance(value, str) and value == field.default:
            continue
        setattr(message, field.name, value)


def read_fields(kind: type[Kind], message: Message) -> Kind:
    """What ``write_fields`` wrote.

    Raises:
        KeyError: a number that the enumeration does not have.
    """
    found: dict[str, Any] = {}
    for field in fields(kind):
        value, described = getattr(message, field.name), _described(message, field.name)
        if described.enum_type is not None:
            name = described.enum_type.values_by_number[value].name
            value = name[len(field.name) + 1 :].lower().replace("_", "-")
        found[field.name] = field.default if value == "" else value
    return kind(**found)


def _described(message: Message, name: str) -> Any:
    """The descriptor of a field; its class depends on protobuf's implementation."""
    return message.DESCRIPTOR.fields_by_name[name]
