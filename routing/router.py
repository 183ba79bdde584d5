"""The router: a queue's name -> which side runs it, how its pods are made, and which rule says so.

An exact name beats any pattern; of patterns the longer one (characters as written) wins, then the one with more
characters that are no wildcards, then the alphabet decides. Names are case-sensitive. A queue that no rule matches is
Celery's. The rule `kubernetes` exists unless a rule of that name replaces it.

The scheduler, the dispatcher's options and `podyard queues` use it; nothing else decides a side. Pure: whether a
template exists is asked of the function that is given.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from dispatcher import constraints, queue_patterns
from dispatcher.attempts import wait_rules
from dispatcher.manifests import redaction
from dispatcher.options import QueueProfile
from dispatcher.settings import layers, reading

DEFAULT_QUEUE = "default"
"""Where a task without `queue=` goes."""
DEFAULT_RULE = layers.DEFAULT_RULE
NO_RULE = "(no rule)"
"""The `rule` of a route that no rule decided: Celery."""

Side = Literal["celery", "kubernetes"]
SIDES: tuple[Side, ...] = ("celery", "kubernetes")

_ABOUT_PODS = 'means nothing with side = "celery": it is about pods; remove it'


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the rules. `key` is None when the queue's name itself is."""

    queue: str
    key: str | None
    value: object
    message: str

    def __str__(self) -> str:
        """One line that names the queue, the key and the value."""
        if self.key is None:
            return f"queue {self.queue!r}: {self.message}"
        return f"queue {self.queue!r}: {self.key} = {self.value!r}: {self.message}"


class InvalidRules(ValueError):
    """Rules that cannot be used; `problems` holds all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class QueueRule:
    """One rule: the queues that `name` matches run on `side`, their pods as `profile` says."""

    name: str
    side: Side
    profile: QueueProfile = field(default_factory=QueueProfile)

    @property
    def is_pattern(self) -> bool:
        """Whether the name has wildcards."""
        return queue_patterns.is_pattern(self.name)

    @property
    def length(self) -> int:
        """What "longer" means between patterns: characters as written, wildcards and brackets included."""
        return len(self.name)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where a task of `queue` runs. On the Celery side only the profile's `waits` say something."""

    side: Side
    queue: str
    profile: QueueProfile
    rule: str
    """The name of the rule that decided, or NO_RULE."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a queue runs where it runs."""

    route: Route
    why: str
    lost: tuple[tuple[QueueRule, str], ...]
    """Rules that match the queue too, and why each did not decide."""


class Router:
    """The rules in the order in which they are asked."""

    def __init__(self, rules: Sequence[QueueRule]) -> None:
        """Trusts the rules; `from_mapping` is the door that checks them."""
        self.rules: tuple[QueueRule, ...] = tuple(sorted(rules, key=lambda rule: queue_patterns.precedence(rule.name)))
        self._exact = {rule.name: rule for rule in self.rules if not rule.is_pattern}
        self._patterns = [rule for rule in self.rules if rule.is_pattern]

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        defaults: QueueProfile | None = None,
    ) -> Self:
        """The router for settings of the shape `{"queues": {name or pattern: {"side": …, "max_pods": …}}}`.

        Args:
            mapping: other keys than `queues` are not looked at; without it only the default rule exists.
            defaults: what a rule does not set.

        Raises InvalidRules, which lists everything that is wrong.
        """
        queues = mapping.get("queues") or {}
        if not isinstance(queues, Mapping):
            raise InvalidRules(
                [Problem("queues", None, queues, "must be a table of rules, such as [queues.kubernetes]")]
            )
        checker = _Checker(defaults or QueueProfile())
        given = [checker.rule(name, value) for name, value in {DEFAULT_RULE: {}, **queues}.items()]
        router = cls([rule for rule in given if rule is not None])
        names = [rule.name for rule in router.rules]
        unreachable = [Problem(name, None, name, why) for name, why in queue_patterns.unreachable(names)]
        problems = [*checker.problems, *unreachable]
        if problems:
            raise InvalidRules(problems)
        return router

    def route(self, queue: str | None) -> Route:
        """The side and the profile of a queue; None and "" mean the queue `default`."""
        queue = queue or DEFAULT_QUEUE
        rule = next(self._matching(queue), None)
        if rule is None:
            return Route(side="celery", queue=queue, profile=QueueProfile(), rule=NO_RULE)
        return Route(side=rule.side, queue=queue, profile=rule.profile, rule=rule.name)

    def explain(self, queue: str | None) -> Explanation:
        """The route of a queue, why, and which other rules matched and lost."""
        route = self.route(queue)
        matching = tuple(self._matching(route.queue))
        if not matching:
            return Explanation(route=route, why="no rule matches it, and what no rule matches is Celery's", lost=())
        winner, *losers = matching
        return Explanation(
            route=route,
            why=_why(winner, alone=not losers),
            lost=tuple((loser, _why_lost(loser, winner)) for loser in losers),
        )

    def names(self, side: Side) -> tuple[str, ...]:
        """The queues of a side that rules name exactly, sorted: what a worker can consume without further names."""
        return tuple(sorted(rule.name for rule in self.rules if rule.side == side and not rule.is_pattern))

    def _matching(self, queue: str) -> Iterator[QueueRule]:
        """The rules that match, the deciding one first."""
        if queue in self._exact:
            yield self._exact[queue]
        yield from (rule for rule in self._patterns if queue_patterns.matches(rule.name, queue))


def _why(winner: QueueRule, *, alone: bool) -> str:
    if not winner.is_pattern:
        return "the rule has exactly this name"
    return "the only rule that matches" if alone else f"the longest pattern that matches ({winner.length} characters)"


def _why_lost(loser: QueueRule, winner: QueueRule) -> str:
    if not winner.is_pattern:
        return "a pattern, and an exact name wins over any pattern"
    if loser.length < winner.length:
        return f"a shorter pattern ({loser.length} characters)"
    if queue_patterns.precedence(loser.name)[2] > queue_patterns.precedence(winner.name)[2]:
        return "as long, with more wildcards"
    return "as long, later in the alphabet"


class _Checker:
    """Turns rules as written into `QueueRule`s and gathers what is wrong with them."""

    def __init__(self, defaults: QueueProfile) -> None:
        self.defaults = defaults
        self.problems: list[Problem] = []

    def rule(self, name: object, value: object) -> QueueRule | None:
        """The rule, or None where something about it is wrong (then `problems` has grown)."""
        before = len(self.problems)
        if isinstance(value, QueueRule):
            return value
        if not isinstance(name, str) or not isinstance(value, Mapping):
            shown = redaction.hide(value)
            self._add(str(name), None, shown, f"must be a table with a side ({' or '.join(SIDES)}), not {shown!r}")
            return None
        wrong = queue_patterns.invalid_name(name)
        if wrong:
            self._add(name, None, name, f"{queue_patterns.NEVER}: {wrong}; remove or rename it")
        side = self._side(name, value)
        said = {key: one for key, one in value.items() if key != "side"}
        profile, problems = reading.profile(said, defaults=self.defaults, beside=("side",))
        for problem in problems:
            self._add(name, problem.key, problem.value, problem.message)
        if side == "celery":
            self._check_messages(name, said, wrong={problem.key for problem in problems})
        if side is None or len(self.problems) > before:
            return None
        return QueueRule(name=name, side=side, profile=profile)

    def _check_messages(self, name: str, said: Mapping[str, object], *, wrong: Collection[str]) -> None:
        """A rule of Celery workers has no pods: it may only say how long its messages wait."""
        for key, one in said.items():
            if key in wrong:
                continue
            problem = wait_rules.problem(one, is_of_messages=True) if key == "waits" else _ABOUT_PODS
            if problem:
                self._add(name, key, redaction.hide(one), problem)

    def _side(self, name: str, value: Mapping[str, object]) -> Side | None:
        side = value.get("side", "kubernetes" if name == DEFAULT_RULE else None)
        for known in SIDES:
            if side == known:
                return known
        if side is None:
            self._add(name, None, None, f"has no side; write side = {_quoted(SIDES)}")
        else:
            self._add(name, "side", side, f"must be {_quoted(SIDES)}{constraints.nearest(side, SIDES)}")
        return None

    def _add(self, queue: str, key: str | None, value: object, message: str) -> None:
        self.problems.append(Problem(queue, key, value, message))


def _quoted(words: Collection[str]) -> str:
    return " or ".join(f'"{word}"' for word in words)
