"""Faults by Python: asks a local cluster that was started with `--faults`, from any process that has its kubeconfig."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dispatcher.localcluster import client
from dispatcher.localcluster.faults import kinds

Json = dict[str, Any]
_FAULTS = "/podyard/faults"
_STATS = "/podyard/stats"


@dataclass(frozen=True, kw_only=True)
class Added:
    """A fault that was taken: its number, and the names of what it met at once."""

    number: int
    met: tuple[str, ...]


@dataclass(frozen=True)
class Faults:
    """Asks for faults. `add` takes any kind; the other verbs are for the frequent ones, with the fields of the kind."""

    cluster: client.Client

    @classmethod
    def of(cls, kubeconfig: Path) -> "Faults":
        """The faults of the cluster that wrote this kubeconfig."""
        return cls(client.Client.from_kubeconfig(kubeconfig))

    def add(self, fault: kinds.Fault) -> Added:
        """Takes a fault into the plan; what is due takes place before this returns."""
        answer = self.cluster.call("POST", _FAULTS, kinds.write(fault))
        (shown,) = answer["faults"]
        return Added(number=shown["id"], met=tuple(shown["met"]))

    def remove(self, number: int) -> None:
        """Takes one fault out."""
        self.cluster.call("DELETE", f"{_FAULTS}/{number}")

    def clear(self) -> None:
        """Takes all out, and brings a lost node back."""
        self.cluster.call("DELETE", _FAULTS)

    def play(self, script: kinds.Script) -> None:
        """Replaces all faults, and the seed if one is given."""
        faults = [kinds.write(fault) for fault in script.faults]
        self.cluster.call("PUT", _FAULTS, {"seed": script.seed, "faults": faults})

    def hits(self, number: int) -> int:
        """How often a fault was used."""
        shown = self.cluster.call("GET", _FAULTS)["faults"]
        return next(int(entry["hits"]) for entry in shown if entry["id"] == number)

    # --- counters ---

    def stats(self) -> Json:
        """Requests by resource and verb since the start or the last reset, and how they were answered."""
        found: Json = self.cluster.call("GET", _STATS)
        return found

    def reset_stats(self) -> Json:
        """Begins to count anew; gives what was counted."""
        found: Json = self.cluster.call("DELETE", _STATS)
        return found

    # --- calls ---

    def fail(self, verb: str, status: int = 500, **fields: Any) -> int:
        """Calls of a verb fail (`kinds.Fail`); gives the fault's number."""
        return self.add(kinds.Fail(verb=verb, status=status, **fields)).number

    def garble(self, verb: str, body: str = "null", **fields: Any) -> int:
        """Calls of a verb are answered with success and nonsense (`kinds.Garble`); gives the fault's number."""
        return self.add(kinds.read({"kind": "garble", "verb": verb, "body": body, **fields})).number

    def restart_apiserver(self, down_s: float = 1.0, forbidden_s: float = 0.0) -> None:
        """The API server goes and comes back (`kinds.RestartApiserver`)."""
        self.add(kinds.RestartApiserver(down_s=down_s, forbidden_s=forbidden_s))

    def delay(self, verb: str, seconds: float, **fields: Any) -> int:
        """Calls of a verb take longer (`kinds.Delay`); gives the fault's number."""
        return self.add(kinds.Delay(verb=verb, seconds=seconds, **fields)).number

    def deny(self, verb: str = "*", resource: str = "*", **fields: Any) -> int:
        """RBAC refuses (`kinds.Deny`); gives the fault's number."""
        return self.add(kinds.Deny(verb=verb, resource=resource, **fields)).number

    # --- watches ---

    def cut_watches(self, how: Literal["abort", "end"] = "abort") -> int:
        """Ends all open watches; gives their number."""
        return len(self.add(kinds.CutWatches(how=how)).met)

    def silence_watches(self, for_s: float | None = None) -> int:
        """Silences all open watches; gives their number."""
        return len(self.add(kinds.SilenceWatches(for_s=for_s)).met)

    def expire_versions(self, how: Literal["event", "status"] = "event") -> None:
        """Every resourceVersion so far is 410."""
        self.add(kinds.ExpireVersions(how=how))

    def disturb(self, how: Literal["duplicate", "reorder", "garbage", "drop"], **fields: Any) -> int:
        """Events of watches come otherwise (`kinds.Disturb`); gives the fault's number."""
        return self.add(kinds.Disturb(how=how, **fields)).number

    # --- pods ---

    def evict(self, pod: str, **fields: Any) -> tuple[str, ...]:
        """The kubelet evicts pods; gives their names. As all verbs below: raises FaultError where none is met."""
        return self._met(kinds.Evict(pod=pod, **fields))

    def preempt(self, pod: str, **fields: Any) -> tuple[str, ...]:
        """The scheduler preempts pods."""
        return self._met(kinds.Preempt(pod=pod, **fields))

    def oom(self, pod: str, **fields: Any) -> tuple[str, ...]:
        """A container of each pod is killed for its memory."""
        return self._met(kinds.Oom(pod=pod, **fields))

    def kill(self, pod: str, **fields: Any) -> tuple[str, ...]:
        """A container of each pod is killed."""
        return self._met(kinds.Kill(pod=pod, **fields))

    def delete(self, pod: str, **fields: Any) -> tuple[str, ...]:
        """Somebody deletes pods."""
        return self._met(kinds.Delete(pod=pod, **fields))

    def _met(self, fault: kinds.ToPods) -> tuple[str, ...]:
        met = self.add(fault).met
        if not met and not fault.after_s:
            raise kinds.FaultError(f"no unfinished pod is met by {kinds.write(fault)}; wait until it is Running")
        return met

    def unpullable(self, image: str, **fields: Any) -> int:
        """Images cannot be pulled (`kinds.Unpullable`); gives the fault's number."""
        return self.add(kinds.Unpullable(image=image, **fields)).number

    def unschedulable(self, pod: str = "*", **fields: Any) -> int:
        """No node takes pods (`kinds.Unschedulable`); gives the fault's number."""
        return self.add(kinds.Unschedulable(pod=pod, **fields)).number

    # --- the node ---

    def lose_node(self, **fields: Any) -> tuple[str, ...]:
        """The node answers no longer (`kinds.LoseNode`); gives the names of its pods."""
        return self.add(kinds.LoseNode(**fields)).met

    def restore_node(self) -> None:
        """It is back."""
        self.add(kinds.RestoreNode())

    def remove_node(self) -> tuple[str, ...]:
        """It is given up, its pods are deleted; gives their names."""
        return self.add(kinds.RemoveNode()).met
