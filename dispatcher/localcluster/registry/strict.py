"""Fields that no object has: what becomes of them is the caller's choice (`fieldValidation`). Pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
"""

from dispatcher.localcluster.objects import refusal, resources


def refuse(resource: resources.Resource, unknown: list[str]) -> refusal.Refusal:
    """What a strict server says."""
    kind = resource.kind
    listed = "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown)
    return refusal.bad_request(f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {listed}')


def warnings(unknown: list[str]) -> list[str]:
    """The headers by which a lenient server says it."""
    return [f'299 - "unknown field \\"{path}\\""' for path in unknown]
