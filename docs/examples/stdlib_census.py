"""A census of the standard library of the Python that runs the tasks: modules, lines, functions and classes.

    plan >> twelve counts, half in Celery workers, half in pods >> report
    second_opinion (bash: find and grep) >> report
    pod_of_any_image (needs nothing of ours inside) >> report

A module is a `.py` file, links not followed. Functions are all `def` and `async def`, methods and nested ones included;
lambdas are not. Folders of tests and of installed packages are left out. All tasks must run on the same Python;
`report` checks that.

The report is written by the task `report`, which runs in a Celery worker. The run says where to:
`podyard dags trigger stdlib_census --conf '{"report": "/path/to/report.txt"}'`; without that it is
`.podyard/census-report.txt` in the folder that the worker was started in. The task's result says the whole path.
"""

import ast
import os
import sys
import sysconfig
import tokenize
from pathlib import Path

from routing import DAG, BashOperator, KubernetesPodOperator, task

SHARDS = 12
STDLIB = sysconfig.get_path("stdlib")  # asked again wherever this file is loaded: on each worker, in each pod
LEFT_OUT = {"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"}
FIGURES = ("modules", "lines", "functions", "classes")


@task
def plan() -> dict:
    """Divides the library's top-level modules and packages among the shards, so that each gets about as many bytes."""
    names = {path.name.removesuffix(".py") for path in Path(STDLIB).iterdir()} - LEFT_OUT
    sizes = {name: sum(path.stat().st_size for path in files_of(name)) for name in names}
    shards = [{"bytes": 0, "names": []} for _ in range(SHARDS)]
    for name in sorted(filter(sizes.get, sizes), key=lambda name: (-sizes[name], name)):
        lightest = min(shards, key=lambda shard: shard["bytes"])
        lightest["bytes"] += sizes[name]
        lightest["names"].append(name)
    return {"python": python(), "folder": STDLIB, "shards": shards}


@task
def count(plan: dict, shard: int) -> dict:
    """Counts the modules of one shard by parsing them."""
    found = dict.fromkeys(FIGURES, 0)
    for name in plan["shards"][shard]["names"]:
        for path in files_of(name):
            with tokenize.open(path) as file:  # decodes as Python does
                lines = file.readlines()
            kinds = [type(node).__name__ for node in ast.walk(ast.parse("".join(lines)))]
            found["modules"] += 1
            found["lines"] += len(lines)
            found["functions"] += kinds.count("FunctionDef") + kinds.count("AsyncFunctionDef")
            found["classes"] += kinds.count("ClassDef")
    print(f"shard {shard}: {found}")
    return {"python": python(), "shard": shard, **found}


@task
def report(plan: dict, counts: list, second_opinion: str, conf: dict) -> dict:
    """Adds up, compares with the second opinion and writes the report."""
    pythons = {plan["python"], *(one["python"] for one in counts)}
    if len(pythons) > 1:
        raise ValueError(f"the shards were counted by different Pythons, the sum means nothing: {sorted(pythons)}")
    totals = {figure: sum(one[figure] for one in counts) for figure in FIGURES}
    modules, lines = map(int, second_opinion.split())
    if (modules, lines) != (totals["modules"], totals["lines"]):
        raise ValueError(f"find and grep see {modules} modules and {lines} lines, but the shards {totals}")
    # Whoever starts the run knows best where the report should be; a worker knows only its own folder.
    path = Path(conf.get("report") or ".podyard/census-report.txt").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table(plan, counts, totals), encoding="utf-8")
    return {"report": str(path), **totals}


def files_of(name: str) -> list:
    """The files behind a name that one imports: `json` -> [json/__init__.py, json/decoder.py, …]."""
    found = [Path(STDLIB, f"{name}.py")]
    for root, folders, files in os.walk(Path(STDLIB, name)):
        folders[:] = set(folders) - LEFT_OUT
        found += [Path(root, file) for file in files if file.endswith(".py")]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def python() -> str:
    """Which Python this is, exactly enough that two equal ones have the same library."""
    return f"{sys.implementation.name} {sys.version.split()[0]}"


def table(plan: dict, counts: list, totals: dict) -> str:
    """The report as text."""
    row = "{:>6} {:>9} {:>9} {:>10} {:>9}\n".format
    text = f"Census of the standard library of {plan['python']}\n{plan['folder']}\n\n"
    text += row("shard", *FIGURES)
    for one in sorted(counts, key=lambda one: one["shard"]):
        text += row(one["shard"], *(one[figure] for figure in FIGURES))
    return text + row("all", *(totals[figure] for figure in FIGURES))


with DAG("stdlib_census", description="Counts the standard library, half in Celery workers, half in pods"):
    planned = plan()
    counts = []
    for shard in range(SHARDS):
        # Without a queue it is the default one, which Celery workers consume.
        side, queue = ("celery", None) if shard % 2 else ("kubernetes", "kubernetes")
        counting = count.override(task_id=f"count_{shard:02}_{side}", queue=queue, retries=1, retry_delay=1)
        counts.append(counting(planned, shard))

    second_opinion = BashOperator(
        task_id="second_opinion",
        bash_command=r"""
            left_out=$(printf -- '-name %s -o ' $LEFT_OUT)
            # grep prints a number per file: how many lines it has, also if the last one has no end.
            find "$STDLIB" -type d \( ${left_out% -o } \) -prune -o -type f -name '*.py' -print0 |
              xargs -0 grep -hac '' |
              awk '{ modules += 1; lines += $1 } END { print modules, lines }'
        """,
        env={"STDLIB": STDLIB, "LEFT_OUT": " ".join(sorted(LEFT_OUT))},
    )
    pod = KubernetesPodOperator(
        task_id="pod_of_any_image",
        image="python:3-slim",
        cmds=["python", "-c"],
        arguments=["import sys; print(sys.version, 'knows', len(sys.stdlib_module_names), 'modules by name')"],
    )
    reported = report(planned, counts, second_opinion.output)
    pod >> reported
