"""Speed, as ratios of things measured side by side in one run: see docs/benchmarks.md.

Only the ratios mean something, and only those of one run: machines differ, and the same machine
differs from hour to hour. Nothing in here is a test.
"""
