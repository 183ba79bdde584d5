"""Outcomes travel from the pod to the dispatcher unchanged, or say why they cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.protocol import outcome

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def made(value: object = None, **fields: object) -> outcome.Outcome:
    """A success with a value, unless told otherwise."""
    return outcome.Outcome(
        **{"id": "a-1", "retries": 0, "state": "SUCCESS", "value": value, "runtime_s": 0.5, **fields}
    )


def through(result: outcome.Outcome, *, noise: str = "") -> outcome.Outcome:
    """What the dispatcher reads of what the pod writes."""
    encoded = outcome.encode(result)
    assert len(encoded.message) <= outcome.MESSAGE_LIMIT_BYTES
    told = outcome.decode(encoded.message.decode(), task_id=result.id, retries=result.retries)
    if isinstance(told, outcome.Frame):
        return outcome.read_frame((noise + "\n".join(encoded.lines) + "\n" + noise).encode(), told)
    return told


@given(JSON, st.text())
def test_any_json_value_comes_back_equal(value: object, noise: str) -> None:
    """Whatever its size, and whatever else stands in the log."""
    assert made(value) == through(made(value), noise=noise.replace("\r", "") + "\n")


@pytest.mark.parametrize("size", [10, 3_900, 4_200, 70_000, 1_000_000])
def test_a_long_text_comes_back_equal(size: int) -> None:
    """On both sides of what a termination message can hold."""
    value = "".join(chr(33 + (index * 7919) % 90) for index in range(size))

    assert made(value) == through(made(value), noise="0 yyy\n" * 100)


def test_a_failure_comes_back_with_its_arguments_and_traceback() -> None:
    """An exception is data on the way."""
    failure = outcome.Failure(type="ValueError", module="builtins", args=["ä", 1], traceback="Traceback …\n")

    assert made(state="FAILURE", failure=failure) == through(made(state="FAILURE", failure=failure))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"v": 2}',
        '{"v": 1, "id": "a-1", "retries": 0}',
        '{"v": 1, "id": "a-1", "retries": 0, "state": "MAYBE"}',
    ],
)
def test_garbage_is_refused_with_a_reason(text: str) -> None:
    """A pod may print anything where the outcome should be."""
    with pytest.raises(outcome.UnreadableOutcome, match=r"outcome"):
        outcome.decode(text, task_id="a-1", retries=0)


HEAD = '"v": 1, "id": "a-1", "retries": 0'
FAILED = '"type": "ValueError", "module": "builtins"'


@pytest.mark.parametrize(
    "fields",
    [
        '"state": []',
        '"state": null',
        '"state": "SUCCESS", "runtime_s": "soon"',
        '"state": "SUCCESS", "runtime_s": NaN',
        '"state": "SUCCESS", "runtime_s": -1',
        '"state": "RETRY", "retry": "now"',
        '"state": "FAILURE", "failure": "it failed"',
        '"state": "FAILURE", "failure": {"type": 5, "module": "m", "args": []}',
        f'"state": "FAILURE", "failure": {{{FAILED}, "args": "ab"}}',
        f'"state": "FAILURE", "failure": {{{FAILED}, "args": [], "traceback": 7}}',
        f'"state": "FAILURE", "failure": {{{FAILED}, "args": [], "more": 7}}',
        '"frame": 5',
        '"frame": {}',
        '"frame": {"lines": "many", "sha256": "x"}',
        '"frame": {"lines": 0, "sha256": "x"}',
        '"frame": {"lines": true, "sha256": "x"}',
        '"frame": {"lines": 3, "sha256": null}',
    ],
)
def test_a_field_of_another_type_is_refused_with_a_reason(fields: str) -> None:
    """Taken as it is it would fail whenever Celery tries to store it, for ever."""
    with pytest.raises(outcome.UnreadableOutcome, match=r"outcome"):
        outcome.decode(f"{{{HEAD}, {fields}}}", task_id="a-1", retries=0)


def test_a_frame_of_more_lines_than_there_are_costs_nothing() -> None:
    """The number is the pod's: it must not fill the dispatcher's memory."""
    told = outcome.decode(f'{{{HEAD}, "frame": {{"lines": 10000000000, "sha256": "x"}}}}', task_id="a-1", retries=0)
    assert isinstance(told, outcome.Frame)
    with pytest.raises(outcome.UnreadableOutcome, match="9999999999 of the 10000000000 lines"):
        outcome.read_frame(b"podyard-outcome a-1 1/10000000000 eA==\n", told)


def test_a_frame_that_unpacks_to_more_than_any_outcome_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes can stand for gigabytes."""
    monkeypatch.setattr(outcome, "_WHOLE_LIMIT_BYTES", 10_000)
    encoded = outcome.encode(made("x" * 1_000_000))
    frame = outcome.decode(encoded.message.decode(), task_id="a-1", retries=0)
    assert isinstance(frame, outcome.Frame)
    with pytest.raises(outcome.UnreadableOutcome):
        outcome.read_frame("\n".join(encoded.lines).encode(), frame)


@pytest.mark.parametrize(("task_id", "retries"), [("another", 0), ("a-1", 1)])
def test_the_outcome_of_another_launch_is_refused(task_id: str, retries: int) -> None:
    """A foreign outcome, or one of an earlier try, never becomes this task's."""
    text = outcome.encode(made(1)).message.decode()

    with pytest.raises(outcome.UnreadableOutcome, match="not of this pod's task"):
        outcome.decode(text, task_id=task_id, retries=retries)


def test_a_frame_with_a_missing_or_changed_line_is_refused() -> None:
    """Part of a value is never taken for the value."""
    encoded = outcome.encode(made("".join(chr(40 + (index * 31337) % 80) for index in range(60_000))))
    frame = outcome.decode(encoded.message.decode(), task_id="a-1", retries=0)
    changed = [encoded.lines[0][:-9] + "AAAAAAAA" + encoded.lines[0][-1:], *encoded.lines[1:]]

    with pytest.raises(outcome.UnreadableOutcome, match="not in the log any more"):
        outcome.read_frame("\n".join(encoded.lines[1:]).encode(), frame)
    with pytest.raises(outcome.UnreadableOutcome, match=r"damaged|checksum"):
        outcome.read_frame("\n".join(changed).encode(), frame)


def test_frames_are_not_shown_to_people() -> None:
    """A saved log has the author's lines only."""
    lines = outcome.encode(made("é" * 50_000)).lines

    assert outcome.strip_frames(("first\n" + "\n".join(lines) + "\nlast\n").encode()) == b"first\nlast\n"


def test_a_long_traceback_keeps_its_start_and_end() -> None:
    """The middle is left out, and the text says so."""
    short = outcome.shortened("start" + "x" * 100_000 + "end")

    assert len(short) < 21_000
    assert (short[:5], short[-3:]) == ("start", "end")
    assert "left out" in short
