"""The pages of the project: links, anchors and addresses are right, and what checks them finds mistakes."""

from pathlib import Path

import pytest

from tests import pages


def test_links_anchors_and_addresses_of_all_pages_exist() -> None:
    """And every page is reached from docs/index.md. `make docs` runs the samples, too."""
    assert pages.wrong_in_pages() == []


def test_some_pages_have_samples_that_run() -> None:
    """Were the mark misspelt everywhere, `make docs` would have nothing to run."""
    found = {sample.language for page in pages.pages() for sample in pages.samples(page)}
    assert found == {"python", "sh", "toml"}


@pytest.mark.parametrize(
    ("address", "is_there"),
    [
        ("dispatcher.worker.pool", True),
        ("dispatcher.worker.pool:KubernetesPool.on_apply", True),
        ("dispatcher.attempts.registry.Attempts", True),
        ("dispatcher.Secret", True),
        ("dispatcher.worker.pool:KubernetesPool.on_applied", False),
        ("dispatcher.lifecycle", False),
        ("dispatcher.worker.pools", False),
        ("routing.merging.merge", False),
    ],
)
def test_an_address_exists_or_not(address: str, is_there: bool) -> None:
    """Packages, modules, names in modules, members of classes, and names that a package loads when asked."""
    assert pages.exists(address) is is_there


def test_a_broken_link_and_a_missing_heading_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links in code are no links."""
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# One & two\n\n# Same\n\n# Same\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[x](b.md#one--two) [y](b.md#same-1) [z](b.md#same-2) [u](c.md) `[v](d.md)` [w](https://e.f/g.md)\n"
    )
    assert pages.broken_links(page) == ["a.md: b.md#same-2: no such heading", "a.md: c.md: no such file"]


def test_a_sample_that_fails_is_found(tmp_path: Path) -> None:
    """With its output."""
    page = tmp_path / "a.md"
    page.write_text("```python runnable\nprint('x')\n```\n\n```python runnable bad.py\nraise SystemExit('oh')\n```\n")
    good, bad = pages.samples(page)
    assert (good.line, bad.line, bad.file) == (1, 5, "bad.py")
    assert pages.run(good, tmp_path) is None
    assert pages.run(bad, tmp_path) == "exit code 1\noh\n"
