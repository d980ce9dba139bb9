"""Doing its worst to ``walstream receive --synchronous``, the primary's only synchronous standby.

    python -m tests.torture --cycles 300 --seed 7 --directory /var/tmp/torture

Clients commit rows and write down each commit that the primary confirmed. In each cycle something
breaks at a random instant: walstream or the primary or both are killed, the connection is cut or
falls silent, the disk is full, its writes or syncs fail, its power fails. Each cycle ends with a
SIGKILL, and then, before walstream could receive again what it may have lost, a server is recovered
from a base backup and the archive as it was left: it must hold every commit that was confirmed.
"""
