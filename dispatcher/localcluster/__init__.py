"""A Kubernetes API on this machine whose pods are processes: for laptops and tests (docs/local-cluster.md).

`server` wires, starts and stops. `objects` holds what all parts share (the store, versions, refusals); `registry` what
an API server decides about objects. Above them stand three packages that know nothing of each other: `apiserver` (HTTP:
requests, answers, watches), `kubelet` (runs pods: `pod_worker` one pod, `containers`, `runtime`) and `faults` (make it
go wrong on request), which is injected into the other two through `objects.fault_points`. `fixtures` is the pytest
plugin for authors.
"""
