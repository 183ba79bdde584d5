"""A Kubernetes API on this machine whose pods are processes: for laptops and tests (docs/local-cluster.md).

From the outside in: `server` (wiring, start, stop) → `api` (HTTP) → `verbs` (requests, answers) → `registry` (what the
API server decides; `forms` and `admission` refuse) → `store` (objects, versions, watches) ← `kubelet` (runs pods) →
`podworker` (one pod) → `containers` → `runtime` (processes, or nothing at all for benchmarks). `faults` make it go
wrong on request; `fixtures` is the pytest plugin for authors.
"""
