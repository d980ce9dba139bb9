"""The face that ``twistd walstream`` shows: options, checked, and the service that they ask for.

Importing it imports no reactor, so that ``--reactor`` works, and little else, so that
``twistd --help`` stays quick.
"""

from walstream.tap.options import Options
from walstream.tap.service import makeService

__all__ = ["Options", "makeService"]
