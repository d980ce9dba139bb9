"""Fixtures for tests on real PostgreSQL servers: see `tests.servers`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.servers import (
    Clusters,
    ServersUnavailable,
    Templates,
    fetch,
    selected_majors,
)
from tests.servers import installation as fetched_installation
from walstream.embedded import Account, Cluster, Installation, workspace


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses servers on the versions that it asks for."""
    if "installation" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("postgresql")
        majors = selected_majors()
        if marker is None:
            majors = majors[-1:]
        elif marker.args:
            majors = tuple(major for major in majors if major in marker.args)
        metafunc.parametrize("installation", majors, indirect=True, scope="session", ids=_test_id)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the servers that are needed, before any test's time runs."""
    if session.config.option.collectonly:
        return
    parameters = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    wanted = [each.get("installation") for each in parameters]
    try:
        # A test that is for none of the selected versions has no number there, and is skipped.
        fetch({major for major in wanted if isinstance(major, int)})
    except ServersUnavailable as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the servers' logs with a test that failed."""
    report = yield
    clusters = getattr(item, "funcargs", {}).get("clusters")
    if report.failed and clusters is not None:
        report.sections += [(f"log of {cluster}", cluster.log_tail()) for cluster in clusters.all]
    return report


@pytest.fixture(scope="session", autouse=True)
def no_libpq_environment() -> None:
    """Nothing of the environment steers a connection."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trial's `TestCase.mktemp` makes files where we are: that must not be the checkout."""
    os.chdir(tmp_path_factory.mktemp("trial"))


@pytest.fixture(scope="session")
def session_directory() -> Iterator[Path]:
    """A directory for the whole run, which every user can enter."""
    with workspace("walstream-tests-") as base:
        yield base


@pytest.fixture(scope="session")
def server_account() -> Account:
    """The user that servers run as."""
    return Account.for_servers()


@pytest.fixture(scope="session")
def templates(session_directory: Path, server_account: Account) -> Templates:
    """Data directories to copy."""
    return Templates(session_directory, server_account)


@pytest.fixture(scope="session")
def installation(
    request: pytest.FixtureRequest, session_directory: Path, server_account: Account
) -> Installation:
    """PostgreSQL's programs of the version that this test runs on."""
    major: int = request.param
    programs = fetched_installation(major)
    return programs.for_user(server_account, session_directory / _test_id(major))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of this test, which every user can enter: servers cannot use tmp_path."""
    with workspace("walstream-test-") as base:
        yield base


@pytest.fixture
def clusters(
    installation: Installation, directory: Path, templates: Templates
) -> Iterator[Clusters]:
    """Makes this test's servers, and ends them."""
    made = Clusters(installation, directory, templates)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def primary(clusters: Clusters) -> Cluster:
    """A running primary with segments of 1 MiB."""
    return clusters.primary()


def _test_id(major: int) -> str:
    return f"pg{major}"
