"""A Kubernetes API on this machine whose pods are processes: for laptops and tests (docs/local-cluster.md).

From the outside in: `server` (wiring, start, stop) → `api` (HTTP) → `registry` (what the API server decides) →
`store` (objects, versions, watches) ← `kubelet` (runs pods) → `runtime` (processes, or nothing at all for benchmarks).
"""
