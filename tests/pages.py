"""What the pages say, held against the tree: links, anchors, addresses of our own code, and samples that run.

`make docs` runs it (`python -m tests.pages`); `tests/unit/test_pages.py` asks for all but the samples. A code block is
run if its info string says so: "python runnable", "toml runnable", "sh runnable"; a third word is the file that it is
written to. The blocks of a page are run in their order, in one empty folder, with this checkout's commands on the PATH.
"""

import ast
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "docs" / "index.md"
SAMPLE_S = 60.0
TASK_NAMES = frozenset({"routing.run"})
"""Names of Celery tasks that look like addresses."""

_FENCED = re.compile(r"^(```+|~~~+).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(\s*([^)\s]+)[^)]*\)")
_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_ADDRESS = re.compile(r"(?<![\w./@-])(?:dispatcher|routing)(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_][\w.]*\w)?")
_PATH = re.compile(r"(?<![\w./-])(?:dispatcher|routing|tests|compose|docs|templates)/[\w./-]*\.(?:py|md|yaml)\b")
_SAMPLE = re.compile(r"^```(python|toml|sh) runnable(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every page of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


# Links


def broken_links(page: Path) -> list[str]:
    """Relative links of a page whose file or heading does not exist."""
    wrong = []
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            wrong.append(f"{_name(page)}: {link}: no such file")
        elif anchor and anchor not in anchors(target.read_text()):
            wrong.append(f"{_name(page)}: {link}: no such heading")
    return wrong


def unreachable() -> list[str]:
    """Pages below docs/ to which no chain of links leads from the index."""
    seen, open_pages = set(), [INDEX]
    while open_pages:
        page = open_pages.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        open_pages += [(page.parent / link.partition("#")[0]).resolve() for link in _links(page)]
    return [_name(page) for page in pages() if page not in seen]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    result = set()
    for heading in _HEADING.findall(_FENCED.sub("", text)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        result.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return result


def _links(page: Path) -> Iterator[str]:
    text = _CODE.sub("", _FENCED.sub("", page.read_text()))
    return (link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link))


# Addresses


def missing_addresses(file: Path) -> list[str]:
    """Modules, names in them and paths that a page or a module names and that do not exist."""
    text = file.read_text()
    found = {address for address in _ADDRESS.findall(text) if address not in TASK_NAMES}
    wrong = [f"{_name(file)}: {address}" for address in sorted(found) if not exists(address)]
    paths = {path for path in _PATH.findall(text) if file.suffix == ".md" or path.startswith("d")}
    return wrong + [f"{_name(file)}: {path}" for path in sorted(paths) if not (ROOT / path).exists()]


def exists(address: str) -> bool:
    """Whether `package.module`, `package.module.name` or `package.module:Class.method` is there."""
    module, rest = ROOT, address.replace(":", ".").split(".")
    while rest and (module / rest[0]).is_dir():
        module /= rest.pop(0)
    if rest and (module / f"{rest[0]}.py").exists():
        return _has(module / f"{rest[0]}.py", rest[1:])
    init = module / "__init__.py"
    return not rest or (init.exists() and _has(init, rest))


def _has(module: Path, rest: list[str]) -> bool:
    names = _names(module)
    if not rest or ".".join(rest[:2]) in names:
        return True
    # a name that is made when it is asked for stands there as a string
    return "__getattr__" in names and any(
        isinstance(node, ast.Constant) and node.value == rest[0] for node in ast.walk(_tree(module))
    )


@functools.cache
def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


@functools.cache
def _names(module: Path) -> frozenset[str]:
    """What a module defines or imports, members of classes as `Class.member`."""
    return frozenset(_defined(_tree(module)))


def _defined(body: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    for node in body.body:
        match node:
            case ast.ClassDef():
                yield prefix + node.name
                yield from _defined(node, f"{prefix}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + node.name
            case ast.Assign():
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name
            case ast.Import() | ast.ImportFrom():
                yield from (prefix + (alias.asname or alias.name) for alias in node.names)


# Samples


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A code block that is run."""

    page: Path
    line: int
    language: str
    file: str | None
    text: str


def samples(page: Path) -> list[Sample]:
    """The code blocks of a page that are marked as runnable, in their order."""
    text = page.read_text()
    return [
        Sample(
            page=page,
            line=text[: found.start()].count("\n") + 1,
            language=found[1],
            file=found[2],
            text=found[3],
        )
        for found in _SAMPLE.finditer(text)
    ]


def run(sample: Sample, folder: Path) -> str | None:
    """Runs a sample in a folder; what is wrong with it, if anything is."""
    file = folder / (sample.file or {"python": "sample.py", "toml": "podyard.toml", "sh": "sample.sh"}[sample.language])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(sample.text)
    command = {
        "python": [sys.executable, str(file)],
        "toml": ["podyard", "--config", str(file), "config", "show"],
        "sh": ["sh", "-eu", str(file)],
    }[sample.language]
    here = str(Path(sys.executable).parent)
    environ = {"PATH": f"{here}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, timeout=SAMPLE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {SAMPLE_S:.0f} s"
    return None if done.returncode == 0 else f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def wrong_in_pages() -> list[str]:
    """All that is wrong, but for samples."""
    modules = [*(ROOT / "dispatcher").rglob("*.py"), *(ROOT / "routing").rglob("*.py")]
    wrong = [text for page in pages() for text in broken_links(page)]
    wrong += [f"{page}: not reachable from docs/index.md" for page in unreachable()]
    return wrong + [text for file in [*pages(), *sorted(modules)] for text in missing_addresses(file)]


def main() -> int:
    """Checks everything, prints what is wrong."""
    wrong, count = wrong_in_pages(), 0
    for page in pages():
        with tempfile.TemporaryDirectory() as folder:
            for sample in samples(page):
                count += 1
                if trouble := run(sample, Path(folder)):
                    wrong.append(f"{_name(page)}:{sample.line}: {trouble}")
    for text in wrong:
        print(text, file=sys.stderr)
    print(f"{len(pages())} pages, {count} samples run, {len(wrong)} mistakes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
