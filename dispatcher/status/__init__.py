"""Step ⑦: what a pod says of itself, what its reasons mean, and what to do about them. Pure: no I/O, no clock."""

from dispatcher.status.observation import Observation, observe

__all__ = ["Observation", "observe"]
