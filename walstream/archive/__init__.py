"""A directory of WAL, as pg_receivewal lays it out: sink and provider at once.

`walstream.archive.directory` has what the rest is for: `ArchiveDirectory`, which this process
fills, and `ArchiveReader`, which another one may.
"""
