"""Why it waits or failed: each reason of the issue's list in sentences, from the words that a real cluster uses."""

import errno
import os
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
        (
            "Forbidden",
            'pods "x" is forbidden: failed quota: team: must specify limits.cpu for: base; requests.cpu for: base',
            "application",
            "the quota team of the namespace counts limits.cpu, and a container",
        ),
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


@pytest.mark.parametrize("code", [1, 3, 126, 127, 134, 137, 139, 143])
def test_a_body_on_a_worker_is_told_without_containers_and_images(code: int) -> None:
    """There are none: a command that ends with 127 was not found on the worker."""
    found = told("Error", exit_code=code, place="worker")
    text = f"{found.explanation} {found.what_to_do}"
    assert found.cause == "application"
    assert not re.search(r"container|image|pod\b|node|limit", text), text
    if code == 127:
        assert found.explanation == "a command of the task was not found on its worker"


def test_a_body_in_a_pod_is_not_the_pods_container() -> None:
    """Its command is the entry point, which was found; a command of the task was not."""
    assert told("Error", exit_code=127, place="pod").explanation == (
        "a command of the task was not found in the image of its pod"
    )
    assert (
        told("Error", exit_code=3, place="pod").explanation
        == "the task ended with exit code 3: its own program says no"
    )
    assert told("StartError", "No such file or directory: 'bash'", place="worker").explanation == (
        "the shell of the task could not be started on its worker"
    )


def test_only_a_task_with_a_pod_is_advised_to_render_it() -> None:
    """`podyard dags render` shows pods."""
    assert "dags render" not in told("TemplateError", place="worker").what_to_do
    assert "dags render" in told("TemplateError", place="pod").what_to_do


@pytest.mark.parametrize("end", ["", ".", ",", ";", ":", ", ", ". Threshold quantity: 1", "; the cluster said: x"])
@pytest.mark.parametrize(
    ("reason", "message", "words"),
    [
        ("Evicted", "The node was low on resource: memory", "ran low on memory, and"),
        ("Evicted", "The node was low on resource: example.com/gpu", "ran low on example.com/gpu, and"),
        (
            "CreateContainerConfigError",
            "couldn't find key a.b in Secret ns/db",
            "the key a.b is not in the Secret ns/db, w",
        ),
        ("QuotaExceeded", "exceeded quota: team.a", "the quota team.a of the"),
        ("Forbidden", "violates PodSecurity restricted:v1.25", "the Pod Security Standard restricted:v1.25"),
        (
            "Unschedulable",
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu",
            "too little nvidia.com/gpu is free on",
        ),
    ],
)
def test_what_is_found_in_a_message_ends_where_the_name_ends(reason: str, message: str, words: str, end: str) -> None:
    """ "ran low on memory.," was read."""
    assert words in told(reason, f"{message}{end}").explanation


OF_NETWORKS = (
    "EADDRINUSE", "EADDRNOTAVAIL", "EAGAIN", "ECOMM", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN",
    "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH", "ENOBUFS", "ENOLINK", "ENONET", "ENOTCONN", "EPIPE",
    "EPROTO", "EREMOTEIO", "ESHUTDOWN", "ETIMEDOUT",
)  # fmt: skip
KERNEL = [os.strerror(getattr(errno, name)).lower() for name in OF_NETWORKS if hasattr(errno, name)]
"""What the kernel says of networks: Go has the same words, in small letters."""
GO = [
    "i/o timeout", "EOF", "unexpected EOF", "context deadline exceeded", "context canceled", "operation was canceled",
    "net/http: TLS handshake timeout", "net/http: request canceled while waiting for connection",
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    "net/http: timeout awaiting response headers", "http2: client connection lost", "use of closed network connection",
    "http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR", "server misbehaving",
    "http: server closed idle connection", "stream error: stream ID 3; INTERNAL_ERROR; received from peer",
    "no such host", "Temporary failure in name resolution", "proxyconnect tcp: EOF", "Proxy Authentication Required",
    "x509: certificate signed by unknown authority", "tls: failed to verify certificate: x509: certificate has expired",
    "remote error: tls: handshake failure", "http: server gave HTTP response to HTTPS client",
]  # fmt: skip
SERVERS = [
    f"{form}{code} {text}"
    for form in (
        "unexpected status from HEAD request to https://registry.example/v2/x/manifests/1: ",
        "unexpected status code [manifests 1]: ", "received unexpected HTTP status: ", "unexpected status code ",
    )
    for code, text in (
        (500, "Internal Server Error"), (502, "Bad Gateway"), (503, "Service Unavailable"), (504, "Gateway Timeout"),
        (504, "Gateway Time-out"), (521, ""),
    )
]  # fmt: skip
TRANSFERS = [
    "failed to copy: httpReadSeeker: failed open: {}",
    "failed commit on ref: unexpected commit digest sha256:1, expected sha256:2",
    "short read: expected 7 bytes but got 3",
    "failed to do request: {}",
    "failed to authorize: failed to fetch token: {}",
]
BEGINS = [
    "{}",
    'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {}',
    'rpc error: code = Unknown desc = failed to pull and unpack image "{image}": {}',
    "rpc error: code = Unavailable desc = error reading from server: {}",
    'Back-off pulling image "{image}": ErrImagePull: {}',
    "initializing source docker://{image}: pinging container registry: {}",
    "Error response from daemon: {}",
]
OPERATIONS = [
    "{}",
    'Head "https://registry.example/v2/team/app/manifests/1": dial tcp 10.0.0.1:443: connect: {}',
    'Get "https://registry.example/v2/": dial tcp: lookup registry.example on 10.96.0.10:53: {}',
    "read tcp 10.0.0.2:40112->10.0.0.1:443: read: {}",
    "write tcp [2001:db8::1]:40112->[2001:db8::2]:443: write: {}",
    'Post "https://auth.example/token": {}',
]
IMAGES = ["registry.example/team/app:1", "nginx", "ghcr.io/not-found/unauthorized:forbidden", "denied.example:5000/x"]
REFUSALS = [
    ("not found", "no such image or tag"),
    ("manifest unknown: manifest unknown", "no such image or tag"),
    (
        "unexpected status from HEAD request to https://r.example/v2/x/manifests/1: 404 Not Found",
        "no such image or tag",
    ),
    ("pull access denied, repository does not exist or may require authorization", "private, or does not exist"),
    ("unexpected status from GET request to https://r.example/v2/x: 401 Unauthorized", "private, or does not exist"),
    ("failed to fetch anonymous token: unexpected status: 403 Forbidden", "private, or does not exist"),
    ("denied: requested access to the resource is denied", "private, or does not exist"),
    ("no match for platform in manifest: not found", "processor"),
]
ODD_NAMES = [*IMAGES, "eof.example/goaway/no-such-host:timeout", "x509.example/tls/rate-limit:502", "timeout:eof"]


@given(
    st.sampled_from(reasons.IMAGE_WAITS),
    st.sampled_from(BEGINS),
    st.sampled_from(OPERATIONS),
    st.sampled_from([*KERNEL, *GO, *SERVERS, *TRANSFERS]),
    st.sampled_from(IMAGES),
)
def test_a_pull_that_did_not_come_through_is_nobodys_who_wrote_the_task(
    reason: str, begin: str, operation: str, error: str, image: str
) -> None:
    """Whatever the kernel, Go's libraries and the runtimes say of a network, a registry that is ill, or TLS."""
    message = begin.replace("{image}", image).replace("{}", operation).replace("{}", error).replace("{}", KERNEL[0])
    assert told(reason, message).cause == "infrastructure", message


@given(st.sampled_from(BEGINS[:3] + BEGINS[4:]), st.sampled_from(REFUSALS), st.sampled_from(ODD_NAMES))
def test_an_image_that_a_registry_does_not_give_is_the_authors(
    begin: str, refusal: tuple[str, str], image: str
) -> None:
    """A name that holds the word of another fault is a name."""
    message = begin.replace("{image}", image).replace("{}", f"{image}: {refusal[0]}")
    found = told("ErrImagePull", message)
    assert (found.cause, refusal[1] in found.explanation) == ("application", True), (message, found)


def test_a_node_whose_disk_is_full_is_not_the_registrys_limit() -> None:
    """«quota exceeded» stands in both."""
    for error in ("no space left on device", "disk quota exceeded", "read-only file system"):
        found = told("ErrImagePull", f"failed to extract layer sha256:1: write /var/lib/containerd/x: {error}")
        assert (found.cause, found.is_of_node) == ("infrastructure", True), error


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
    """A general entry before a special one of the same reason and place would hide it."""
    general: set[tuple[str, int | None, str]] = set()
    for known in reasons.TABLE:
        keys = {(reason, known.exit_code, place) for reason in known.reasons for place in known.places}
        wider = {(reason, None, place) for reason in known.reasons for place in known.places}
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
