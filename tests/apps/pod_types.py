"""Types and exceptions of the application in `pod_app`. Apart from it: its tasks would become every application's."""

from kombu.utils.json import register_type


class Money:
    """A type of the application's own in Celery's JSON."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __repr__(self) -> str:
        return f"Money({self.cents})"


register_type(Money, "money", lambda money: money.cents, Money)


class NamedOnlyError(Exception):
    """Cannot be made from its `args`."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class NamedOnlyValueError(ValueError):
    """The same, of a class that can."""

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


class FormatsError(Exception):
    """Makes its text from what it is given."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


def raises(kind: str) -> None:
    """One exception of each kind."""
    raise {
        "named": lambda: NamedOnlyError(code=1),
        "named value": lambda: NamedOnlyValueError("no", code=1),
        "formats": lambda: FormatsError(7),
        "object": lambda: ValueError(object),
        "long": lambda: ValueError("x" * 10_000),
    }[kind]()
