"""Scripted faults of the local cluster, off by default: what goes wrong, when, and how to ask for it (docs/testing.md).

`kinds` is the language and `plan` decides (no I/O; seeded, the clock is passed in). `injection` answers the HTTP side
and the node by the plan, `controller` lets happenings take place. People ask over HTTP (`endpoints`), by a file
(`script`) or in Python (`client`). Neither the HTTP side nor the node is imported here: `targets` are handed in.
"""
