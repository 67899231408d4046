"""Benchmarks: each prints a table of ratios against a named peer, with the spread, and writes JSON."""
