"""What a server is asked and tells, looked at as a history: an honest one passes, one that lies is found out."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dispatcher.localcluster.faults import client
from tests import history, parts
from tests.contract.conftest import Api, ended, watched

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[parts.LocalCluster]:
    """A local cluster whose watches can be made to lie."""
    cluster = parts.LocalCluster.start(tmp_path_factory.mktemp("liar") / "home", "--faults", "--instant")
    yield cluster
    cluster.stop()


def told(liar: parts.LocalCluster, how: str | None) -> list[history.Event]:
    """The history of ten pods that come and go, while the watch is disturbed."""
    api = Api(kubeconfig=liar.kubeconfig, image="x:1", namespace="default", is_local=True, label=f"liar-{how or 0}")
    faults = client.Faults.of(liar.kubeconfig)
    stream = watched(api)
    if how is not None:
        faults.disturb(how, resource="pods")  # type: ignore[arg-type]
    for _ in range(10):
        api.ended(api.create())
    api.clean()
    faults.clear()
    return ended(api, stream)


def test_of_many_who_create_one_name_one_succeeds(api: Api) -> None:
    """A create is a claim, whoever asks at the same time; a delete frees it for one of them again."""
    for _ in range(3):
        manifest = api.manifest("true", name=f"{api.label}-one")
        with ThreadPoolExecutor(8) as pool:
            codes = Counter(pool.map(lambda _: api.call("POST", api.pods, manifest).code, range(8)))  # noqa: B023 - all of them end in this round
        assert codes == {201: 1, 409: 7}
        api.clean()
        parts.eventually(lambda: api.call("GET", f"{api.pods}/{api.label}-one").code == 404, 30)


def test_an_honest_watch_has_an_honest_history(liar: parts.LocalCluster) -> None:
    """Without a disturbance nothing is found, and something was looked at."""
    events = told(liar, None)
    assert history.check(events) == []
    assert len(events) > 50


@pytest.mark.parametrize(
    ("how", "kinds"), [("duplicate", {"backwards"}), ("drop", {"lost"}), ("reorder", {"backwards"})]
)
def test_a_watch_that_lies_is_found_out(liar: parts.LocalCluster, how: str, kinds: set[str]) -> None:
    """Events twice, not at all, or in the wrong order, on their way through real streams."""
    assert kinds <= {one.kind for one in history.check(told(liar, how))}
