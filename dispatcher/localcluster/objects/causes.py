"""What is wrong with a field, in the API server's words. Pure constructors of `refusal.Cause`."""

from collections.abc import Iterable

from dispatcher.localcluster.objects.refusal import Cause


def required(field: str, message: str = "") -> Cause:
    """A field is missing."""
    return Cause(field, "FieldValueRequired", f"Required value{': ' + message if message else ''}")


def invalid(field: str, value: object, message: str) -> Cause:
    """A value cannot be."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {message}")


def duplicate(field: str, value: object) -> Cause:
    """A value is there already."""
    return Cause(field, "FieldValueDuplicate", f'Duplicate value: "{value}"')


def unsupported(field: str, value: str, supported: Iterable[str], hint: str = "") -> Cause:
    """A value is none of those that there are."""
    listed = ", ".join(f'"{word}"' for word in supported)
    return Cause(field, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}{hint}')


def not_found(field: str, value: str) -> Cause:
    """A value names something that is not there."""
    return Cause(field, "FieldValueNotFound", f'Not found: "{value}"')


def forbidden(field: str, message: str) -> Cause:
    """A field may not be set, or not be changed."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {message}")


def too_long(field: str, limit_bytes: int) -> Cause:
    """A value is too large."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit_bytes} bytes")
