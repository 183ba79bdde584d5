"""The HTTP side: addresses, verbs, watches, tables, discovery. What a fault does to a call is injected."""
