"""Why it waits or failed: each reason of the issue's list in sentences, from the words that a real cluster uses."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.attempts import wait_rules
from dispatcher.launching import create_errors
from dispatcher.status import diagnosis, pod_events, reasons, reasons_page

ROOT = Path(__file__).parents[3]


def told(reason: str | None, message: str = "", **known: object) -> diagnosis.Diagnosis:
    return diagnosis.diagnose(diagnosis.Symptoms(reason=reason, message=message, **known))  # type: ignore[arg-type]


def test_out_of_memory_names_container_and_limit() -> None:
    """The sentence that most people look for."""
    found = told("OOMKilled", exit_code=137, container="base", memory_limit="512Mi")
    assert found.cause == "application"
    assert found.explanation == (
        "the container base needed more than its memory limit of 512Mi and was killed by the kernel"
    )
    assert "memory_growth" in found.what_to_do


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exit code 1"),
        (126, "cannot be executed"),
        (127, "not found in its image"),
        (134, "aborted itself"),
        (137, "signal 9; nobody says why"),
        (139, "signal 11"),
        (143, "signal 15"),
    ],
)
@pytest.mark.parametrize("reason", ["Error", None])
def test_an_exit_code_is_told_in_words(reason: str | None, code: int, words: str) -> None:
    """With and without Kubernetes' word for it."""
    found = told(reason, exit_code=code, container="base")
    assert words in found.explanation
    assert found.cause == "application"


@pytest.mark.parametrize(
    ("reason", "message", "cause", "words"),
    [
        ("ContainerCannotRun", 'exec: "nope": executable file not found in $PATH', "application", "not in its image"),
        ("StartError", "exec format error", "application", "another processor"),
        ("DeadlineExceeded", "Pod was active on the node longer than specified", "application", "longer than it may"),
        ("Evicted", "The node was low on resource: memory. Threshold quantity: 1", "infrastructure", "low on memory"),
        ("Evicted", "The node was low on resource: ephemeral-storage.", "infrastructure", "low on ephemeral-storage"),
        (
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
            "application",
            "own",
        ),
        ("Evicted", 'Container base exceeded its local ephemeral storage limit "1Gi".', "application", "own limit"),
        ("Evicted", 'Usage of EmptyDir volume "w" exceeds the limit "1Gi".', "application", "own limit"),
        ("Evicted", "", "infrastructure", "thrown off"),
        ("Preempting", "", "infrastructure", "higher priority"),
        ("PreemptionByScheduler", "", "infrastructure", "higher priority"),
        ("DisruptionTarget", "", "infrastructure", "announced"),
        ("NodeLost", "", "infrastructure", "answers no longer"),
        ("NodeShutdown", "", "infrastructure", "shut down"),
        ("PodDeleted", "", "infrastructure", "deleted the pod"),
        ("UnexpectedAdmissionError", "Allocate failed", "infrastructure", "refused the pod"),
        ("OutOfcpu", "", "infrastructure", "refused the pod"),
        ("OutOfnvidia.com/gpu", "", "infrastructure", "refused the pod"),
        (
            "ErrImagePull",
            "429 Too Many Requests - toomanyrequests: You have reached",
            "infrastructure",
            "limits how often",
        ),
        ("ImagePullBackOff", "dial tcp: i/o timeout", "infrastructure", "cannot be reached"),
        ("ErrImagePull", "pull access denied, repository does not exist or may", "application", "private, or does not"),
        ("ErrImagePull", "failed to resolve reference: not found", "application", "no such image or tag"),
        ("ErrImagePull", "no match for platform in manifest", "application", "not built for"),
        ("ErrImagePull", "", "application", "cannot be pulled"),
        ("InvalidImageName", 'couldn\'t parse image reference "A B"', "application", "cannot be one"),
        ("CreateContainerConfigError", 'secret "keys" not found', "application", 'the secret "keys"'),
        ("CreateContainerConfigError", 'configmap "c" not found', "application", 'the configmap "c"'),
        (
            "CreateContainerConfigError",
            "couldn't find key TOKEN in Secret default/keys",
            "application",
            "the key TOKEN is not in the Secret default/keys",
        ),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            "application",
            "may not run as root",
        ),
        ("QuotaExceeded", 'pods "p" is forbidden: exceeded quota: team, requested: pods=1', None, "the quota team"),
        ("Forbidden", 'violates PodSecurity "restricted:latest": runAsNonRoot', "application", "restricted:latest"),
        ("NotPermitted", 'User "x" cannot create resource "pods"', "infrastructure", "does not let the dispatcher"),
        ("NamespaceTerminating", "", "application", "being deleted"),
        ("NamespaceNotFound", "", "application", "does not exist"),
        ("WebhookDenied", 'admission webhook "p.example" denied the request: no', "application", '"p.example"'),
        ("InvalidPod", "pod: spec.x: 1 is not allowed: the policy's y", "application", "this installation's policy"),
    ],
)
def test_a_reason_is_told_in_a_sentence(reason: str, message: str, cause: str | None, words: str) -> None:
    """And it says whose failure it is, and what to do."""
    found = told(reason, message)
    assert words in found.explanation
    assert found.cause == cause
    assert found.what_to_do


class TestUnschedulable:
    @pytest.mark.parametrize(
        ("message", "words"),
        [
            ("0/2 nodes are available: 2 Insufficient cpu.", "too little cpu is free on 2 node(s)"),
            ("0/1 nodes are available: 1 Insufficient memory.", "too little memory is free on 1 node(s)"),
            ("0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}.", "the taint {gpu: true}"),
            ("1 node(s) had taint {a: b}, that the pod didn't tolerate", "the taint {a: b}"),
            ("1 node(s) didn't match Pod's node affinity/selector.", "labels that nodeSelector or affinity"),
            ("0/3 nodes are available: 3 node(s) didn't match node selector.", "labels that nodeSelector"),
            ("pod has unbound immediate PersistentVolumeClaims.", "not bound to a volume"),
            ('persistentvolumeclaim "data" not found', 'the claim "data"'),
            ("1 node(s) had volume node affinity conflict", "in another zone"),
            ("2 node(s) were unschedulable", "maintenance"),
            ("0/1 nodes are available: 1 Too many pods.", "no room for another pod"),
            ("1 node(s) didn't match pod anti-affinity rules", "spread of pods"),
            ("1 node(s) didn't match pod topology spread constraints", "spread of pods"),
        ],
    )
    def test_each_cause_is_read_from_the_schedulers_words(self, message: str, words: str) -> None:
        found = told("Unschedulable", message)
        assert found.explanation.startswith("no node takes the pod: ")
        assert words in found.explanation
        assert "; " not in found.explanation

    def test_of_several_causes_each_is_told_with_its_remedy(self) -> None:
        """The nodes differ; what the scheduler says of preemption is no further cause."""
        found = told(
            "Unschedulable",
            "0/6 nodes are available: 1 Insufficient cpu, 2 Insufficient memory, 3 node(s) had untolerated taint "
            "{gpu: true}. preemption: 0/6 nodes are available: 3 Insufficient cpu, 3 Preemption is not helpful.",
        )
        assert found.explanation == (
            "no node takes the pod: too little cpu is free on 1 node(s); too little memory is free on 2 node(s); "
            "the taint {gpu: true}, which the pod does not tolerate, is on 3 node(s)"
        )
        assert found.what_to_do == (
            "lower resources.requests, wait for other pods to end, or add nodes; or "
            "add a toleration (template or pod_override), or choose nodes without the taint"
        )

    def test_words_that_nobody_knows_are_no_riddle(self) -> None:
        assert told("Unschedulable", "0/1: ?").explanation == "the scheduler found no node for it"


class TestEvents:
    MOUNT = pod_events.Event(
        at="1", reason="FailedMount", is_warning=True, message='MountVolume.SetUp failed for volume "data" : timeout'
    )

    def test_a_reason_that_says_little_is_told_by_the_newest_warning(self) -> None:
        """`ContainerCreating` may be anything."""
        noise = pod_events.Event(at="2", reason="Scheduled", message="assigned")
        found = told("ContainerCreating", node="n1", events=[self.MOUNT, noise])
        assert found.reason == "FailedMount"
        assert found.explanation == 'the volume "data" cannot be mounted on the node n1'
        assert found.is_of_node

    def test_a_reason_that_says_enough_stays(self) -> None:
        assert told("OOMKilled", events=[self.MOUNT]).reason == "OOMKilled"

    @pytest.mark.parametrize(
        ("reason", "message", "words"),
        [
            ("FailedMount", 'MountVolume.SetUp failed for volume "s" : secret "keys" not found', 'the secret "keys"'),
            ("FailedMount", "Unable to attach or mount volumes: unmounted volumes=[data]", "the volume data"),
            ("FailedAttachVolume", 'Multi-Attach error for volume "pv"', "attached to another node"),
            ("FailedAttachVolume", "", "cannot be attached"),
            ("FailedCreatePodSandBox", "", "cannot make a sandbox"),
        ],
    )
    def test_volumes_that_do_not_mount(self, reason: str, message: str, words: str) -> None:
        event = pod_events.Event(at="1", reason=reason, message=message, is_warning=True)
        assert words in told("ContainerCreating", events=[event]).explanation


def test_the_given_cause_wins_over_the_usual_one() -> None:
    """Who saw the pod knows more than a table."""
    assert told("Unschedulable", cause="application").cause == "application"


def test_a_reason_that_nobody_knows_is_told_as_it_is() -> None:
    found = told("ValueError", "no such thing", cause="application")
    assert (found.reason, found.cause) == ("ValueError", "application")
    assert "ValueError" in found.explanation
    assert told(None).explanation == "nobody gives a reason"


@given(
    st.none() | st.sampled_from([name for known in reasons.TABLE for name in known.reasons]) | st.text(max_size=20),
    st.text(max_size=200),
    st.none() | st.integers(-5, 300),
)
def test_nothing_makes_it_raise(reason: str | None, message: str, code: int | None) -> None:
    """Texts come from clusters and people; braces too."""
    found = told(reason, message, exit_code=code, container="{x}")
    assert found.explanation
    assert found.what_to_do
    assert "\n" not in found.explanation + found.what_to_do or "\n" in (reason or "") + message


def test_the_page_is_the_table() -> None:
    """Regenerate it by `python -m dispatcher.status.reasons_page > docs/reasons.md`."""
    assert (ROOT / "docs" / "reasons.md").read_text() == reasons_page.page()


def test_every_entry_can_be_reached() -> None:
    """A general entry before a special one of the same reason would hide it."""
    general: set[tuple[str, int | None]] = set()
    for known in reasons.TABLE:
        keys = {(reason, known.exit_code) for reason in known.reasons}
        wider = {(reason, None) for reason in known.reasons}
        assert not (keys | wider) <= general, known
        if known.says is None:
            general |= keys


def test_every_reaction_to_an_answer_of_the_server_is_in_the_table() -> None:
    """What a create is refused for or waits for; "already exists" is neither."""
    known = {name for entry in reasons.TABLE for name in entry.reasons}
    given = {rule.reason for rule in create_errors.TABLE} | {create_errors.NO_ANSWER.reason}
    assert given - {"", "AlreadyExists"} <= known


def test_every_reason_of_a_wait_is_in_the_table() -> None:
    """Each kind of wait names the words that the record has for it."""
    known = {name for entry in reasons.TABLE for name in entry.reasons}
    assert {reason for kind in wait_rules.KINDS.values() for reason in kind.reasons} <= known


def test_every_reason_that_we_give_ourselves_is_in_the_table() -> None:
    """Found in the code: words in quotes behind `"reason":` and `reason=`."""
    known = {name for entry in reasons.TABLE for name in entry.reasons}
    given_in = re.compile(r"(?:\"reason\": |\breason=|\bHold\()\"(\w+)\"")
    missing = {
        f"{path.name}: {word}"
        for folder in ("dispatcher", "routing")
        for path in (ROOT / folder).rglob("*.py")
        if "localcluster" not in path.parts and path.name != "create_errors.py"
        for word in given_in.findall(path.read_text())
        if word not in known
    }
    assert missing == set(), "say in dispatcher/status/reasons.py what they mean, and what to do"
