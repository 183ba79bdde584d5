"""Quantities such as `500m` and `1Gi`: text -> number. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal
from typing import Any

from dispatcher.localcluster.objects import refusal

Json = dict[str, Any]
PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_SHAPE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)
_FACTORS = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: Decimal(1000) ** -power for power, suffix in enumerate(("m", "u", "n"), start=1)},
}


def read(quantity: str | float) -> Decimal:
    """The number; raises ValueError."""
    found = _SHAPE.fullmatch(str(quantity))
    if found is None:
        raise ValueError(f"quantities must match the regular expression '{PATTERN}'")
    suffix = found[2] or ""
    # `E` alone is exa; with digits behind it, it is an exponent.
    if suffix[:1] in {"e", "E"} and len(suffix) > 1 and suffix not in _FACTORS:
        return Decimal(found[0])
    return Decimal(found[1]) * _FACTORS.get(suffix, Decimal(1))


def check(pod: Json) -> None:
    """Raises Refusal 400 for a quantity of a pod that is none: an API server cannot even decode it."""
    for field, amounts in _amounts(pod.get("spec") or {}):
        for name, amount in amounts.items():
            try:
                read(amount)
            except ValueError as error:
                raise refusal.bad_request(
                    f'Pod in version "v1" cannot be handled as a Pod: {field}.{name}: {error}'
                ) from None


def _amounts(spec: Json) -> list[tuple[str, Json]]:
    found = []
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            declared = container.get("resources") or {}
            found += [
                (f"spec.{group}[{index}].resources.{part}", declared.get(part) or {}) for part in ("limits", "requests")
            ]
    for index, volume in enumerate(spec.get("volumes") or []):
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is not None:
            found.append((f"spec.volumes[{index}].emptyDir", {"sizeLimit": limit}))
    return found
