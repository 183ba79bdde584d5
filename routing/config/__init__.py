"""The settings: one reader, one table of keys."""
