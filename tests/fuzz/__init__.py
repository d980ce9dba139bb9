"""Bad input of every kind, at random: for what a peer sends, and what stands in files.

`tests.fuzz.targets` lists what is fed; ``python -m tests.fuzz`` feeds it millions of inputs, guided
by the coverage they reach (atheris), and ``tests/unit/test_fuzz.py`` a few in each run of tests.
"""
