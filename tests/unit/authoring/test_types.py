"""What a type checker says of a DAG file: the signature of a task's function stands, and so do the options' types."""

import re
from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[3]

SAMPLE = """
from routing import DAG, BashOperator, task


@task
def extract(source: str, limit: int = 10) -> list[int]:
    return [len(source)] * limit


@task(queue="kubernetes", retries=2, executor_config={"pod_override": {"spec": {}}})
def load(rows: list[int], *, table: str) -> int:
    return len(rows)


with DAG("sample"):
    rows = extract("a", limit=3)
    rows >> load.override(retries=1)(rows, table="t")
    reveal_type(extract.function("a"))
    reveal_type(load.function([1], table="t"))
    extract(7)
    extract("a", limits=3)
    load(rows)
    load.override(retries=1)("text", table="t")
    load.override(retry=1)
    BashOperator(task_id="b", bash_command="true", executor_config={"pod_overide": {}})
    BashOperator(task_id="c", bash_command="true", executor_config={"pod_override": "image: x"})
"""
EXPECTED = [
    ("note", "list[int]"),
    ("note", "int"),
    ("error", 'expected "str"  [arg-type]'),
    ("error", 'Unexpected keyword argument "limits"'),
    ("error", 'Missing named argument "table"'),
    ("error", 'expected "list[int]"  [arg-type]'),
    ("error", 'Unexpected keyword argument "retry"'),
    ("error", 'expected "ExecutorConfig | None"'),
    ("error", 'expected "ExecutorConfig | None"'),
]
"""Line by line from the first `reveal_type` on; the lines before have nothing wrong."""

LINE = re.compile(r'sample\.py:(\d+): (error|note): (?!")(.*)')
"""Of what mypy says; a note that begins with a quoted name only adds to the error before it."""


def test_a_task_keeps_the_signature_of_its_function(tmp_path: Path) -> None:
    """Wrong arguments, options and keys are found where they are written, and what is right is left in peace."""
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    told, trouble, _ = api.run([str(sample), "--strict", "--config-file", str(ROOT / "pyproject.toml")])
    assert trouble == ""
    first = SAMPLE[: SAMPLE.index("    reveal_type")].count("\n") + 1
    found = [match.groups() for match in map(LINE.search, told.splitlines()) if match]
    assert [int(number) for number, _, _ in found] == list(range(first, first + len(EXPECTED)))
    for (_, kind, words), (expected_kind, expected_words) in zip(found, EXPECTED, strict=True):
        assert kind == expected_kind
        assert expected_words in words
