"""Scripted faults of the local cluster, off by default: what goes wrong, when, and how to ask for it (docs/testing.md).

`kinds` is the language, `plan` decides (pure, seeded), `havoc` and the API act on it; people ask through `door` (HTTP),
`script` (a file) or `client` (Python). The `door` counts requests too, and that is always on.
"""
