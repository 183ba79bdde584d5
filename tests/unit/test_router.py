"""The router: which rule decides a queue, and which rules are refused."""

import fnmatch
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import queue_patterns
from dispatcher.options import QueueProfile
from routing import router
from routing.router import InvalidRules, Router

KUBERNETES = {"side": "kubernetes"}
CELERY = {"side": "celery"}

name_piece = st.sampled_from(["a", "b", "-", "gpu", "ü", "["])
pattern_piece = st.sampled_from(["a", "b", "-", "gpu", "*", "?", "[ab]", "[!a]", "[a-c]", "ü"])
names = st.lists(name_piece, min_size=1, max_size=6).map("".join)
patterns = st.lists(pattern_piece, min_size=1, max_size=5).map("".join)


def route_of(queues: dict[str, Any], queue: str | None) -> tuple[str, str]:
    found = Router.from_mapping({"queues": queues}).route(queue)
    return found.side, found.rule


def problems_of(queues: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidRules) as caught:
        Router.from_mapping({"queues": queues})
    return [str(problem) for problem in caught.value.problems]


class TestWithoutSettings:
    def test_the_queue_kubernetes_goes_to_pods_with_the_default_profile(self) -> None:
        """Without any settings `kubernetes` means pods."""
        found = Router.from_mapping({}).route("kubernetes")
        assert found == router.Route(
            side="kubernetes", queue="kubernetes", profile=QueueProfile(), rule=router.DEFAULT_RULE
        )

    @pytest.mark.parametrize("queue", ["default", "Kubernetes", "kubernetes ", "kubernetes2", "*", "мир"])
    def test_every_other_queue_is_celerys(self, queue: str) -> None:
        """What no rule matches goes to Celery; names are case-sensitive."""
        assert route_of({}, queue) == ("celery", router.NO_RULE)

    @pytest.mark.parametrize("queue", [None, ""])
    def test_no_queue_means_the_queue_default(self, queue: str | None) -> None:
        """A task without `queue=` goes to `default`, and rules for `default` hold for it."""
        assert Router.from_mapping({}).route(queue).queue == "default"
        assert route_of({"default": KUBERNETES}, queue) == ("kubernetes", "default")


class TestPrecedence:
    def test_an_exact_name_beats_any_pattern(self) -> None:
        """However long the pattern is."""
        assert route_of({"gpu": CELERY, "[g][p][u]*": KUBERNETES}, "gpu") == ("celery", "gpu")

    def test_a_longer_pattern_beats_a_shorter_one(self) -> None:
        """Characters are counted as they are written."""
        rules = {"*": CELERY, "gpu-*": KUBERNETES, "gpu-big-*": CELERY}
        assert route_of(rules, "gpu-big-1") == ("celery", "gpu-big-*")
        assert route_of(rules, "gpu-1") == ("kubernetes", "gpu-*")
        assert route_of(rules, "cpu") == ("celery", "*")

    def test_of_patterns_as_long_the_one_with_fewer_wildcards_wins_then_the_alphabet(self) -> None:
        """A tie never depends on the order in the file."""
        assert route_of({"?pu-*": CELERY, "gpu-*": KUBERNETES}, "gpu-1") == ("kubernetes", "gpu-*")
        for order in (("*a", "a*"), ("a*", "*a")):
            assert route_of(dict.fromkeys(order, KUBERNETES), "a-a") == ("kubernetes", "*a")

    def test_the_default_rule_stays_beside_others_and_beats_patterns(self) -> None:
        """A rule for everything else does not take `kubernetes` away."""
        assert route_of({"*": CELERY}, "kubernetes") == ("kubernetes", "kubernetes")

    def test_a_rule_of_its_name_replaces_the_default_rule(self) -> None:
        """Even to the other side."""
        assert route_of({"kubernetes": CELERY}, "kubernetes") == ("celery", "kubernetes")

    def test_the_rule_kubernetes_need_not_repeat_its_side(self) -> None:
        """Changing its limit alone is enough."""
        found = Router.from_mapping({"queues": {"kubernetes": {"max_pods": 3}}}).route("kubernetes")
        assert (found.side, found.profile.max_pods) == ("kubernetes", 3)

    @given(st.dictionaries(patterns, st.sampled_from([KUBERNETES, CELERY]), max_size=4), names)
    def test_the_winner_is_the_first_of_all_that_match(self, queues: dict[str, Any], queue: str) -> None:
        """Routing equals: sort by exactness, length, wildcards, alphabet; take the first that fnmatch accepts."""
        try:
            rules = Router.from_mapping({"queues": queues})
        except InvalidRules:
            return  # shadowed rules are another claim

        def key(name: str) -> tuple[bool, int, int, str]:
            wild = sum(name.count(sign) for sign in "*?")
            return (queue_patterns.is_pattern(name), -len(name), wild, name)

        def is_meant(name: str) -> bool:
            return fnmatch.fnmatchcase(queue, name) if queue_patterns.is_pattern(name) else name == queue

        expected = next((name for name in sorted(queues, key=key) if is_meant(name)), None)
        if queue != "kubernetes":
            assert rules.route(queue).rule == (expected or router.NO_RULE)


class TestGlobs:
    @given(patterns, names)
    def test_patterns_match_as_fnmatch_does(self, pattern: str, name: str) -> None:
        """`*`, `?` and classes mean what shells and Python mean by them, also to the proof of reachability."""
        assert queue_patterns.matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)
        tokens = queue_patterns._TOKEN.findall(pattern)
        assert queue_patterns._matches_spelling(tokens, name) == fnmatch.fnmatchcase(name, pattern)

    @given(st.text("ab-[]!*?z", min_size=1, max_size=7), st.text("ab-[]!z", max_size=5))
    def test_brackets_are_read_as_fnmatch_reads_them(self, pattern: str, name: str) -> None:
        """Closed or not, empty or not, negated or not."""
        tokens = queue_patterns._TOKEN.findall(pattern)
        assert queue_patterns._matches_spelling(tokens, name) == fnmatch.fnmatchcase(name, pattern)

    def test_an_unclosed_bracket_is_an_ordinary_character(self) -> None:
        """So `gpu[` is an exact name."""
        assert not queue_patterns.is_pattern("gpu[")
        assert route_of({"gpu[": KUBERNETES}, "gpu[") == ("kubernetes", "gpu[")


class TestReachable:
    @given(patterns, st.lists(patterns, max_size=4), names)
    def test_a_rule_that_is_called_shadowed_decides_no_name(self, pattern: str, above: list[str], name: str) -> None:
        """Nobody's rule is refused that could decide something: it is claimed only where it is proved."""
        if fnmatch.fnmatchcase(name, pattern) and not any(fnmatch.fnmatchcase(name, one) for one in above):
            assert not queue_patterns.is_shadowed(pattern, above)

    @given(*[st.lists(st.sampled_from(["a", "b", "?", "[ab]", "[!a]"]), min_size=1, max_size=3).map("".join)] * 3)
    def test_without_stars_the_answer_is_exact(self, pattern: str, one: str, other: str) -> None:
        """Every name over an alphabet that no class can tell more of is tried."""
        every = ("".join(name) for name in itertools.product("abcA", repeat=len(fnmatch_tokens(pattern))))
        left = [
            name
            for name in every
            if fnmatch.fnmatchcase(name, pattern)
            and not any(fnmatch.fnmatchcase(name, above) for above in (one, other))
        ]
        assert queue_patterns.is_shadowed(pattern, [one, other]) is not bool(left)

    @pytest.mark.parametrize(
        ("pattern", "above", "is_shadowed"),
        [
            ("gpu*", ["gpu**"], True),
            ("a*", ["*a*"], True),
            ("a*b", ["a*"], True),
            ("*", ["?*"], True),
            ("?", ["[!-]", "[-]"], True),
            ("a*", ["a", "a?*"], True),
            ("a*", ["a?*"], False),
            ("a*", ["a[a-y]*", "a"], False),
            ("*a", ["*b"], False),
            ("*", ["[!z]*"], False),
            ("[a-c]", ["a", "b"], False),
            ("[a-c]", ["a", "b", "c"], True),
        ],
    )
    def test_examples(self, pattern: str, above: list[str], is_shadowed: bool) -> None:
        """Alone or together, with the empty text that a star may be."""
        assert queue_patterns.is_shadowed(pattern, above) is is_shadowed

    @pytest.mark.parametrize("pattern", ["*a*b*c*d*", "?" * 60, "[a-z]" * 20, "*" + "[!a]" * 50])
    def test_the_proof_is_given_up_in_time(self, pattern: str) -> None:
        """Many wildcards in many patterns cost a bounded time, and then nothing is claimed."""
        above = [f"*{x}*{y}*" for x in "abcdxy" for y in "abcdzw"]
        began = time.monotonic()
        queue_patterns.is_shadowed(pattern, [*above, "?*"])
        assert time.monotonic() - began < 5


def fnmatch_tokens(pattern: str) -> list[str]:
    return queue_patterns._TOKEN.findall(pattern)


class TestRefused:
    @pytest.mark.parametrize(
        ("queues", "words"),
        [
            ({"gpu": {"side": "kubernets"}}, ["'gpu'", "'kubernets'", 'did you mean "kubernetes"']),
            ({"gpu": {"side": 3}}, ["'gpu'", "3", '"celery" or "kubernetes"']),
            ({"gpu": {}}, ["'gpu'", "side"]),
            ({"gpu": {**KUBERNETES, "max_pod": 3}}, ["'gpu'", "max_pod", 'did you mean "max_pods"']),
            ({"gpu": {**KUBERNETES, "max_pods": 0}}, ["'gpu'", "max_pods = 0", "at least 1"]),
            ({"gpu": {**KUBERNETES, "memory_growth": 1}}, ["memory_growth = 1", "above 1"]),
            ({"gpu": {**KUBERNETES, "memory_growth": 1.5}}, ["memory_growth = 1.5", "needs memory_growth_max"]),
            ({"gpu": {**KUBERNETES, "memory_growth_max": "8 GB"}}, ["'8 GB'", "is not a quantity"]),
            ({"gpu": {**KUBERNETES, "memory_growth_max": 8}}, ["memory_growth_max = 8", '"8Gi"']),
            ({"gpu": {**KUBERNETES, "avoid_failed_nodes": "yes"}}, ["avoid_failed_nodes = 'yes'", "true or false"]),
            ({"gpu": {**KUBERNETES, "max_pods": -1}}, ["'gpu'", "-1"]),
            ({"gpu": {**KUBERNETES, "max_pods": True}}, ["'gpu'", "True"]),
            ({"gpu": {**KUBERNETES, "max_pods": "9"}}, ["'gpu'", "'9'"]),
            ({"gpu": {**KUBERNETES, "max_pods": 2.5}}, ["'gpu'", "2.5"]),
            ({"gpu": {**KUBERNETES, "template": "nowhere"}}, ["'gpu'", "'nowhere'", "default"]),
            ({"gpu": {**KUBERNETES, "template": "./no/such.yaml"}}, ["'gpu'", "no/such.yaml"]),
            ({"gpu": {**KUBERNETES, "namespace": "Big_One"}}, ["'gpu'", "'Big_One'"]),
            ({"gpu": {**KUBERNETES, "env": {"A": 1}}}, ["'gpu'", "env", "A"]),
            ({"gpu": {**KUBERNETES, "env": {"A=B": "1"}}}, ["'gpu'", "A=B"]),
            ({"gpu": {**KUBERNETES, "keep_finished_s": float("inf")}}, ["'gpu'", "inf"]),
            ({"gpu": {**KUBERNETES, "delete": "sometimes"}}, ["'gpu'", "'sometimes'", '"never"']),
            ({"gpu": {**CELERY, "max_pods": 3}}, ["'gpu'", "max_pods", "pods"]),
            ({"gpu": "kubernetes"}, ["'gpu'", "table"]),
        ],
    )
    def test_a_wrong_value_is_named_with_its_queue(self, queues: dict[str, Any], words: list[str]) -> None:
        """An error names the queue, the value and what is allowed."""
        (problem,) = problems_of(queues)
        assert [word for word in words if word not in problem] == []

    @pytest.mark.parametrize("name", ["", " gpu", "a,b", "a\nb", "a\x00", "x" * 256, "\ud800"])
    def test_a_name_that_no_queue_can_have_never_matches(self, name: str) -> None:
        """A rule for it is a mistake, not a rule."""
        (problem,) = problems_of({name: KUBERNETES})
        assert "can never match" in problem

    @pytest.mark.parametrize(
        ("queues", "shadowed"),
        [
            ({"gpu*": KUBERNETES, "gpu**": CELERY}, "gpu*"),
            ({"kubernete[s]": CELERY}, "kubernete[s]"),
            ({"gpu-?": KUBERNETES, "gpu-[!-]": CELERY, "gpu-[-]": CELERY}, "gpu-?"),
            ({"[z-a]": KUBERNETES}, "[z-a]"),
            ({"[,]": KUBERNETES}, "[,]"),
        ],
    )
    def test_a_pattern_that_others_shadow_wholly_is_refused(self, queues: dict[str, Any], shadowed: str) -> None:
        """Also where it takes several rules together, or where the pattern matches nothing at all."""
        (problem,) = problems_of(queues)
        assert repr(shadowed) in problem
        assert "can never match" in problem

    def test_all_mistakes_are_told_at_once(self) -> None:
        """Nobody should have to find them one by one."""
        problems = problems_of({"a": {"side": "x", "max_pods": 0}, "b": {**KUBERNETES, "temlate": "default"}})
        assert len(problems) == 3

    def test_the_text_of_the_error_holds_every_mistake(self) -> None:
        """Whoever prints only the exception sees all of them."""
        with pytest.raises(ValueError, match=r"'a'.*'x'.*'b'.*'y'"):
            Router.from_mapping({"queues": {"a": {"side": "x"}, "b": {"side": "y"}}})

    def test_a_template_file_is_read_and_its_mistake_told(self, tmp_path: Path) -> None:
        """A template that exists but is wrong is refused as well."""
        file = tmp_path / "pod.yaml"
        file.write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: main, image: x}]}\n"
        )
        (problem,) = problems_of({"gpu": {**KUBERNETES, "template": str(file)}})
        assert str(file) in problem
        assert "base" in problem


class TestExplain:
    def test_it_names_the_deciding_rule_and_every_rule_that_lost(self) -> None:
        """And says why each lost."""
        rules = Router.from_mapping({"queues": {"gpu-*": CELERY, "gpu-big": KUBERNETES, "*": CELERY}})
        found = rules.explain("gpu-big")
        assert (found.route.rule, found.why) == ("gpu-big", "the rule has exactly this name")
        assert [(rule.name, "exact" in why) for rule, why in found.lost] == [("gpu-*", True), ("*", True)]

    def test_between_patterns_it_speaks_of_lengths(self) -> None:
        """The numbers can be checked by counting."""
        rules = Router.from_mapping({"queues": {"gpu-*": KUBERNETES, "*": CELERY}})
        found = rules.explain("gpu-1")
        assert found.why == "the longest pattern that matches (5 characters)"
        assert [why for _, why in found.lost] == ["a shorter pattern (1 characters)"]

    def test_without_a_rule_it_says_so(self) -> None:
        """Celery is what is left."""
        assert "no rule" in Router.from_mapping({}).explain("reports").why


def test_rules_may_be_given_as_rules() -> None:
    """`settings.queues` can be fed back."""
    rules = Router.from_mapping({"queues": {"gpu-*": {**KUBERNETES, "max_pods": 7}}})
    again = Router.from_mapping({"queues": {rule.name: rule for rule in rules.rules}})
    assert again.rules == rules.rules


def test_what_a_rule_does_not_set_comes_from_the_defaults() -> None:
    """The settings' namespace reaches every rule that names none."""
    rules = Router.from_mapping({"queues": {"a": KUBERNETES}}, defaults=QueueProfile(namespace="jobs"))
    assert {rule.profile.namespace for rule in rules.rules} == {"jobs"}
