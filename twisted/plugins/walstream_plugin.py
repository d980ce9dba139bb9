"""Make ``twistd walstream`` known. Imports nothing but what that takes: twistd loads it always."""

from twisted.application.service import ServiceMaker

walstream = ServiceMaker(
    "walstream", "walstream.tap", "Receive, archive, serve and relay PostgreSQL's WAL.", "walstream"
)
