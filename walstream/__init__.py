"""Continuous archiving and streaming of PostgreSQL's write-ahead log, on Twisted.

Import what you use from its own module: `walstream.services` to run receivers, senders and hubs,
`walstream.protocols` for the protocols themselves, `walstream.interfaces` for what they plug into,
`walstream.testing` to test what you plug in.
"""

__version__ = "0.1.0"
