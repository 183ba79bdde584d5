"""Quantities: amounts of memory as Kubernetes writes them, such as `512Mi`. Pure.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

import math
import re
from decimal import Decimal

_SHAPE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,2})?", re.ASCII)
_BINARY = {suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)}
_SMALL = {suffix: Decimal(1000) ** -power for power, suffix in enumerate(("m", "u", "n"), start=1)}
_FACTORS = {"": Decimal(1), **_BINARY, **_DECIMAL, **_SMALL}
_MI = 1024**2


def parse(text: object) -> Decimal:
    """The number that a quantity stands for. Raises ValueError for what is no quantity."""
    found = _SHAPE.fullmatch(str(text)) if isinstance(text, str | int) and not isinstance(text, bool) else None
    # bool is an int for Python, and `true` no amount.
    if found is None:
        raise ValueError(f"{text!r} is not a quantity; write an amount such as 512Mi or 4Gi")
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix not in _FACTORS:
        # An exponent such as 1e3: `E` alone is exa, so the suffixes are tried first.
        number, suffix = Decimal(found[0]), ""
    return number * _FACTORS[suffix]


def bytes_of(text: object) -> int:
    """The number of bytes, a part of one counting whole. Raises ValueError for what is no quantity above 0."""
    number = parse(text)
    if number <= 0:
        raise ValueError(f"{text!r} is not an amount of memory: it must be above 0")
    return math.ceil(number)


def of_bytes(amount: int) -> str:
    """A quantity of at least so many bytes, in whole Mi."""
    return f"{math.ceil(amount / _MI)}Mi"


def grown(text: str, *, factor: float, at_most: str) -> str:
    """A quantity times `factor`, in whole Mi and no more than `at_most`; one that is more already stays as it is."""
    amount, most = bytes_of(text), bytes_of(at_most)
    # Never down: an author may have asked for more than the cap, and got it.
    if amount >= most:
        return text
    wanted = of_bytes(math.ceil(amount * factor))
    # In the words of the setting, not as 8192Mi for 8Gi.
    return at_most if bytes_of(wanted) >= most else wanted
