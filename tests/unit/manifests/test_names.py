"""Names and label values are valid for any text, readable where that is possible, and never mistaken for each other."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.manifests import names

LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
POD_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*-[a-z0-9]+")
ANY_TEXT = st.text(alphabet=st.characters())  # lone surrogates too
KEYS = ANY_TEXT


@given(ANY_TEXT)
@example("\n")
@example("valid\n")
@example("..")
@example("…")
@example("a" * 64)
@example("-" * 80)
@example("\ud800")
def test_a_label_value_is_valid_for_any_text(text: str) -> None:
    value = names.label_value(text)
    assert LABEL_VALUE.fullmatch(value)
    assert len(value) <= 63
    assert bool(value) == bool(text)


@given(st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_a_valid_label_value_stays_as_it_is(text: str) -> None:
    assert names.label_value(text) == text


@given(ANY_TEXT)
def test_a_label_value_of_a_label_value_is_itself(text: str) -> None:
    assert names.label_value(names.label_value(text)) == names.label_value(text)


@given(st.sets(ANY_TEXT | st.text(alphabet="aA.-_ /é", max_size=70), max_size=30))
def test_distinct_texts_keep_distinct_label_values(texts: set[str]) -> None:
    assert len({names.label_value(text) for text in texts}) == len(texts)


def test_texts_that_look_alike_after_cleaning_keep_distinct_label_values() -> None:
    """Cut, case, accents, normal forms, and what the cleaning itself would write."""
    texts = [
        "a b", "a_b", "a/b", "a\tb", " a b", "a b ", "A b",
        "e\u0301", "\u00e9", "e",
        "x" * 63, "x" * 64, "x" * 65, "x" * 63 + "y",
        "-a", "a-", "a", ".", "..", "-", "_",
    ]  # fmt: skip
    assert len({names.label_value(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("manual run", "manual_run"),
        ("2024-01-01T00:00:00+00:00", "2024-01-01T00_00_00_00_00"),
        ("Čeština", "Cestina"),
        ("dispatcher@host.example", "dispatcher_host.example"),
        ("--edge--", "edge"),
    ],
)
def test_a_made_label_value_begins_readably(text: str, stem: str) -> None:
    assert re.fullmatch(re.escape(stem) + "-[a-z0-9]{16}", names.label_value(text))


def test_no_label_text_gives_the_empty_value() -> None:
    assert (names.label_value(None), names.label_value("")) == ("", "")


@given(st.lists(ANY_TEXT, min_size=1, max_size=5), KEYS, st.integers(min_value=3, max_value=100))
@example(["."], "k", 63)
@example(["", ""], "k", 63)
@example(["İ", "ß", "½"], "k", 63)
@example(["a" * 300, "b" * 300], "k", 63)
@example(["a-" * 40], "", 62)
def test_a_pod_name_is_a_valid_dns_label_for_any_parts(parts: list[str], key: str, max_length: int) -> None:
    name = names.pod_name(*parts, key=key, max_length=max_length)
    assert len(name) <= min(max_length, 63)
    assert DNS_LABEL.fullmatch(name)
    assert POD_NAME.fullmatch(name)


@given(st.lists(ANY_TEXT, min_size=1, max_size=3), st.lists(ANY_TEXT, min_size=1, max_size=3), KEYS)
def test_the_hash_of_a_pod_name_comes_from_the_key_alone(one: list[str], other: list[str], key: str) -> None:
    hashes = {names.pod_name(*parts, key=key).rpartition("-")[2] for parts in (one, other)}
    assert len(hashes) == 1


@given(st.sets(KEYS, max_size=30))
def test_distinct_keys_keep_distinct_pod_names(keys: set[str]) -> None:
    assert len({names.pod_name("same", key=key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("parts", "stem"),
    [
        (["My_DAG", "load.table"], "my-dag-load-table"),
        (["Průzkum", "krok 1"], "pruzkum-krok-1"),
        (["...", "task"], "task"),
        (["数据"], "pod"),
        ([""], "pod"),
    ],
)
def test_a_pod_name_begins_readably(parts: list[str], stem: str) -> None:
    assert names.pod_name(*parts, key="k").rpartition("-")[0] == stem


def test_a_long_part_leaves_room_for_the_others() -> None:
    """A DAG's id of any length does not push the task's id out of the name."""
    assert "-load-" in names.pod_name("d" * 200, "load", key="k")


def test_a_pod_name_never_changes() -> None:
    """It is the claim on an attempt, so a dispatcher of another version must make the same one."""
    assert names.pod_name("census", "count", key="default/0f3c/0") == "census-count-lw472wq47uwv"
    assert names.label_value("a b") == "a_b-ayvr4qzg6cpx6rim"


def test_a_pod_name_needs_a_part() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        names.pod_name(key="k")


def test_a_pod_name_needs_room() -> None:
    with pytest.raises(ValueError, match="at least 3, got 2"):
        names.pod_name("a", key="k", max_length=2)
