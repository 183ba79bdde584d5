"""The router: a queue's name -> which side runs it, how its pods are made, and which rule says so.

An exact name beats any pattern; of patterns the longer one (characters as written) wins, then the one with more
characters that are no wildcards, then the alphabet decides. Names are case-sensitive. A queue that no rule matches is
Celery's. The rule `kubernetes` exists unless a rule of that name replaces it.

The scheduler, the dispatcher's options and `podyard queues` use it; nothing else decides a side. Pure: whether a
template exists is asked of the function that is given.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from dispatcher.attempts import wait_rules
from dispatcher.manifests import quantities
from dispatcher.options import QueueProfile
from routing import queue_patterns, redaction, template_files

DEFAULT_QUEUE = "default"
"""Where a task without `queue=` goes."""
DEFAULT_RULE = "kubernetes"
NO_RULE = "(no rule)"
"""The `rule` of a route that no rule decided: Celery."""

Side = Literal["celery", "kubernetes"]
SIDES: tuple[Side, ...] = ("celery", "kubernetes")

_FACTOR_MAX = 10.0
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


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


class InvalidRules(ValueError):  # noqa: N818 - says what is invalid, as InvalidTemplate does
    """Rules that cannot be used; `problems` holds all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class Rule:
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
    lost: tuple[tuple[Rule, str], ...]
    """Rules that match the queue too, and why each did not decide."""


class Router:
    """The rules in the order in which they are asked."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Trusts the rules; `from_mapping` is the door that checks them."""
        self.rules: tuple[Rule, ...] = tuple(sorted(rules, key=_precedence))
        self._exact = {rule.name: rule for rule in self.rules if not rule.is_pattern}
        self._patterns = [(rule, queue_patterns.parse(rule.name)) for rule in self.rules if rule.is_pattern]

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        defaults: QueueProfile | None = None,
        template_problem: Callable[[str], str | None] = template_files.problem,
    ) -> Self:
        """The router for settings of the shape `{"queues": {name or pattern: {"side": …, "max_pods": …}}}`.

        Args:
            mapping: other keys than `queues` are not looked at; without it only the default rule exists.
            defaults: what a rule does not set.
            template_problem: says what is wrong with a template's name or path, or None.

        Raises InvalidRules, which lists everything that is wrong.
        """
        queues = mapping.get("queues") or {}
        if not isinstance(queues, Mapping):
            raise InvalidRules(
                [Problem("queues", None, queues, "must be a table of rules, such as [queues.kubernetes]")]
            )
        checker = _Checker(defaults or QueueProfile(), template_problem)
        given = [checker.rule(name, value) for name, value in {DEFAULT_RULE: {}, **queues}.items()]
        router = cls([rule for rule in given if rule is not None])
        problems = [*checker.problems, *router._unreachable()]
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
        """The queues of a side that rules name exactly, sorted: what a worker can consume without being told more."""
        return tuple(sorted(rule.name for rule in self.rules if rule.side == side and not rule.is_pattern))

    def _matching(self, queue: str) -> Iterator[Rule]:
        """The rules that match, the deciding one first."""
        if queue in self._exact:
            yield self._exact[queue]
        yield from (rule for rule, tokens in self._patterns if queue_patterns.matches(tokens, queue))

    def _unreachable(self) -> Iterator[Problem]:
        """Patterns that decide no queue: they match nothing, or rules asked before them match it all."""
        above = [queue_patterns.parse(name) for name in self._exact]
        for rule, tokens in self._patterns:
            if queue_patterns.find_decided(tokens, above) is None:
                yield Problem(rule.name, None, rule.name, self._shadow(rule))
            above.append(tokens)

    def _shadow(self, rule: Rule) -> str:
        tokens = queue_patterns.parse(rule.name)
        if queue_patterns.find_decided(tokens, []) is None:
            return "this rule can never match: no queue name fits the pattern; remove it"
        above = self.rules[: self.rules.index(rule)]
        alone = (
            one.name for one in above if queue_patterns.find_decided(tokens, [queue_patterns.parse(one.name)]) is None
        )
        names = next(([name] for name in alone), [one.name for one in above])
        by = ", ".join(map(repr, names))
        return f"this rule can never match: {by} is asked first and matches all that it does; remove one of them"


def _precedence(rule: Rule) -> tuple[bool, int, int, str]:
    """The order of asking: exact names, then the longer pattern, then fewer wildcards, then the alphabet."""
    wildcards = sum(token is None or token == queue_patterns.ANY for token in queue_patterns.parse(rule.name))
    return (rule.is_pattern, -rule.length, wildcards, rule.name)


def _why(winner: Rule, *, alone: bool) -> str:
    if not winner.is_pattern:
        return "the rule has exactly this name"
    return "the only rule that matches" if alone else f"the longest pattern that matches ({winner.length} characters)"


def _why_lost(loser: Rule, winner: Rule) -> str:
    if not winner.is_pattern:
        return "a pattern, and an exact name wins over any pattern"
    if loser.length < winner.length:
        return f"a shorter pattern ({loser.length} characters)"
    if _precedence(loser)[2] > _precedence(winner)[2]:
        return "as long, with more wildcards"
    return "as long, later in the alphabet"


class _Checker:
    """Turns rules as written into `Rule`s and gathers what is wrong with them."""

    def __init__(self, defaults: QueueProfile, template_problem: Callable[[str], str | None]) -> None:
        self.defaults = defaults
        self.template_problem = template_problem
        self.problems: list[Problem] = []

    def rule(self, name: object, value: object) -> Rule | None:
        """The rule, or None where something about it is wrong (then `problems` has grown)."""
        before = len(self.problems)
        if isinstance(value, Rule):
            return value
        if not isinstance(name, str) or not isinstance(value, Mapping):
            self._add(str(name), None, value, f"must be a table with a side ({' or '.join(SIDES)}), not {value!r}")
            return None
        wrong = queue_patterns.invalid_name(name)
        if wrong:
            self._add(name, None, name, f"this rule can never match: {wrong}; remove or rename it")
        side = self._side(name, value)
        given = {key: value[key] for key in value if key != "side" and self._is_right(name, key, value[key])}
        if side == "celery":
            for key, one in given.items():
                wrong = wait_rules.problem(one, is_of_messages=True) if key == "waits" else _ABOUT_PODS
                if wrong:
                    self._add(name, key, one, wrong)
        profile = replace(self.defaults, **given)
        if profile.memory_growth and not profile.memory_growth_max:
            self._add(name, "memory_growth", profile.memory_growth, 'needs memory_growth_max, such as "8Gi"')
        if side is None or len(self.problems) > before:
            return None
        return Rule(name=name, side=side, profile=profile)

    def _side(self, name: str, value: Mapping[str, object]) -> Side | None:
        side = value.get("side", "kubernetes" if name == DEFAULT_RULE else None)
        for known in SIDES:
            if side == known:
                return known
        if side is None:
            self._add(name, None, None, f"has no side; write side = {_quoted(SIDES)}")
        else:
            self._add(name, "side", side, f"must be {_quoted(SIDES)}{_nearest(side, SIDES)}")
        return None

    def _is_right(self, name: str, key: str, value: object) -> bool:
        check = CHECKS.get(key)
        if check is None:
            known = ("side", *CHECKS)
            self._add(name, key, value, f"unknown key{_nearest(key, known)}; known are {', '.join(known)}")
            return False
        wrong = check(value)
        if wrong is None and key == "template":
            wrong = self.template_problem(str(value))
        if wrong is not None:
            self._add(name, key, redaction.hide_environment(value) if isinstance(value, Mapping) else value, wrong)
        return wrong is None

    def _add(self, queue: str, key: str | None, value: object, message: str) -> None:
        self.problems.append(Problem(queue, key, value, message))


def _quoted(words: Collection[str]) -> str:
    return " or ".join(f'"{word}"' for word in words)


def _nearest(word: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(word), known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value else "must be a text that is not empty"


def _namespace(value: object) -> str | None:
    if isinstance(value, str) and _NAMESPACE.fullmatch(value):
        return None
    return "must be a namespace's name: 1 to 63 small letters, digits and dashes, no dash at either end"


def _positive_integer(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return None
    return "must be a whole number of at least 1"


def _seconds(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return None
    return "must be a number of seconds, 0 or more"


def _factor(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 < value <= _FACTOR_MAX:
        return None
    return f"must be a number above 1, at most {_FACTOR_MAX:g}, such as 1.5"


def _quantity(value: object) -> str | None:
    try:
        quantities.bytes_of(value)
    except ValueError as error:
        return str(error)
    return None if isinstance(value, str) else 'must be a text such as "8Gi"; put it in quotes'


def _boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _environment(value: object) -> str | None:
    if not isinstance(value, Mapping):
        return 'must be a table of names and texts, such as { LANG = "C.UTF-8" }'
    wrong = next((name for name in value if not isinstance(name, str) or not name or "=" in name or "\0" in name), None)
    if wrong is not None:
        return f"{wrong!r} cannot be the name of an environment variable"
    name = next((name for name, text in value.items() if not isinstance(text, str)), None)
    return None if name is None else f"the value of {name} must be a text; put it in quotes"


_ABOUT_PODS = 'means nothing with side = "celery": it is about pods; remove it'


def _one_of(*allowed: str) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        return None if value in allowed else f"must be {_quoted(allowed)}{_nearest(value, allowed)}"

    return check


CHECKS: Mapping[str, Callable[[object], str | None]] = {
    "template": _text,
    "namespace": _namespace,
    "max_pods": _positive_integer,
    "image": _text,
    "env": _environment,
    "keep_finished_s": _seconds,
    "delete": _one_of("always", "succeeded", "never"),
    "schedule_timeout_s": _seconds,
    "startup_timeout_s": _seconds,
    "waits": wait_rules.problem,
    "memory_growth": _factor,
    "memory_growth_max": _quantity,
    "avoid_failed_nodes": _boolean,
    "credentials": _one_of("none", "inherit"),
    "credentials_secret": _text,
    "payload": _one_of("inline", "secret"),
}
"""What a rule may say beside its side: each key of QueueProfile, and what is wrong with a value of it."""
