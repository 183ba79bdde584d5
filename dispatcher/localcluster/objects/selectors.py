"""Label and field selectors: text as in `kubectl -l` and `--field-selector` -> a claim about an object. Pure.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from dispatcher.localcluster.objects import refusal

# Commas inside of `in (a, b)` do not end a clause.
_SPLIT = re.compile(r",(?![^()]*\))")
_SET = re.compile(r"^(?P<key>[^\s!=()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALS = re.compile(r"^(?P<key>[^\s!=()]+)\s*(?P<op>==|!=|=)\s*(?P<value>[^\s!=()]*)$")
_EXISTS = re.compile(r"^(?P<not>!\s*)?(?P<key>[^\s!=()]+)$")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")


@dataclass(frozen=True)
class Requirement:
    """One clause; `values` None asks only for the key itself."""

    key: str
    values: frozenset[str] | None
    positive: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet this clause; a missing key meets every negative one."""
        if self.values is None:
            return (self.key in labels) is self.positive
        found = labels.get(self.key)
        return (found is not None and found in self.values) is self.positive


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The clauses of a label selector; raises Refusal 400 that quotes the clause."""
    return tuple(_label_clause(part.strip()) for part in _SPLIT.split(text)) if text.strip() else ()


def _label_clause(clause: str) -> Requirement:
    if found := _SET.match(clause):
        values = frozenset(value.strip() for value in found["values"].split(","))
        requirement = Requirement(found["key"], values, found["op"] == "in")
    elif found := _EQUALS.match(clause):
        requirement = Requirement(found["key"], frozenset([found["value"]]), found["op"] != "!=")
    elif found := _EXISTS.match(clause):
        requirement = Requirement(found["key"], None, not found["not"])
    else:
        raise refusal.bad_request(f'unable to parse requirement: found "{clause}", expected a label requirement')
    if not _KEY.match(requirement.key):
        raise refusal.bad_request(f'unable to parse requirement: key: Invalid value: "{requirement.key}"')
    return requirement


def parse_fields(text: str, *, known: Collection[str], plural: str) -> tuple[Requirement, ...]:
    """The clauses of a field selector over the `known` fields; raises Refusal 400 that names an unknown one."""
    clauses = []
    for part in text.split(","):
        if not part.strip():
            continue
        found = re.match(r"^(?P<key>[^!=]+?)(?P<op>==|!=|=)(?P<value>.*)$", part.strip())
        if not found:
            raise refusal.bad_request(f"invalid selector: '{text}'; can't understand '{part.strip()}'")
        if found["key"] not in known:
            raise refusal.bad_request(
                f'Unable to find "/v1, Resource={plural}" that match label selector "", field selector "{text}": '
                f"field label not supported: {found['key']}"
            )
        clauses.append(Requirement(found["key"], frozenset([found["value"]]), found["op"] != "!="))
    return tuple(clauses)


def fields_hold(clauses: tuple[Requirement, ...], fields: Callable[[], Mapping[str, str]]) -> bool:
    """Whether an object's fields meet all clauses; `fields` is only called where there is a clause."""
    if not clauses:
        return True
    values = fields()
    return all(clause.holds(values) for clause in clauses)
