"""Text for terminals: nothing in it steers one."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from routing.cli import plaintext

hostile = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b[]\x07\r\n\t\x9b\u202e\u2066\x7f0;m"), st.characters(codec="ascii"))
)


@given(hostile)
def test_no_text_steers_a_terminal(text: str) -> None:
    """Neither control characters but line ends and tabs, nor a turned direction of writing."""
    steering = {char for char in plaintext.lines(text) if unicodedata.category(char) in ("Cc", "Cs")} - {"\n", "\t"}
    assert steering == set()
    assert not set(plaintext.lines(text)) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@given(hostile)
def test_one_line_stays_one_line(text: str) -> None:
    """Whatever is in a name, a row of a table or an error is one row."""
    assert len(plaintext.line(text).splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_ordinary_text_is_not_changed(text: str) -> None:
    """Any script, any sign."""
    assert plaintext.line(text) == text


def test_a_whole_escape_sequence_goes() -> None:
    """Not only its first character: `[31m` would stay behind."""
    assert plaintext.lines("\x1b[31mred\x1b[0m \x1b]0;title\x07end\x1bM") == "red end"
    assert plaintext.lines("50 %\r100 %\r\n") == "50 %\n100 %\n"


@given(st.recursive(hostile, lambda inner: st.lists(inner) | st.dictionaries(hostile, inner), max_leaves=5))
def test_json_keeps_its_value(value: object) -> None:
    """Escapes are for the terminal; a program reads the same."""
    text = plaintext.json_text(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cs")]
