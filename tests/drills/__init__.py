"""Drills with a hub and many real standbys, by hand and at length; tests run short ones.

    python -m tests.drills fleet --seconds 300 --seed 7
    python -m tests.drills chain --rounds 30 --seed 7
    python -m tests.drills backlog --segments 200

``fleet``: twelve standbys on one hub, of which three are stopped, killed and started at random.
``chain``: a hub behind a hub behind a hub, each of which is killed and comes back at random, with
promotions through all of it. ``backlog``: a standby of an old base backup, which gets everything
since then out of a compressed archive, in one session.
"""
