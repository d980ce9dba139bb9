"""``python -m walstream``: the same as the ``walstream`` command."""

import sys

from walstream.cli import main

if __name__ == "__main__":
    sys.exit(main())
