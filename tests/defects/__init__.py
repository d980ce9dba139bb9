"""The defects of pg_receivewal that are known, side by side with ``walstream receive``.

Each is a scene that is played to either of them, on real servers, and tells what came of it:

    python -m tests.defects --version 18

prints a table; ``tests/integration/test_defects.py`` sees to it that walstream has none of them.
"""
