"""Benchmarks: run by `make bench`, printed as ratios side by side, never asserted against a clock."""
