"""The whole matrix: ``python -m tests.client_matrix``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.client_matrix.cases import ANOTHER_VERSION, EVERY
from tests.client_matrix.outcome import Outcome, of_another_version, outcomes, surprises
from tests.client_matrix.table import Table, with_tables
from tests.client_matrix.world import world
from tests.servers import Clusters, Templates, installation, selected_majors
from walstream.embedded import Account, workspace


def main() -> int:
    """Run it, and print all of it; 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.client_matrix",
        description="Real clients at a server and at walstream: what each is told.",
    )
    parser.add_argument(
        "--version", type=int, action="append", help="PostgreSQL's; may be given more than once"
    )
    parser.add_argument("--document", type=Path, help="put the tables into it")
    arguments = parser.parse_args()
    found: dict[int, Sequence[Outcome]] = {}
    troubles = 0
    for major in arguments.version or selected_majors():
        found[major], wrong = _run(major)
        troubles += wrong
    if arguments.document is not None:
        document = arguments.document.read_text()
        arguments.document.write_text(with_tables(document, Table(found)))
    print(f"{sum(map(len, found.values()))} attempts at each, {troubles} not as they should be")
    return 1 if troubles else 0


def _run(major: int) -> tuple[Sequence[Outcome], int]:
    """The cases on one version, and how many of them are not as they should be."""
    with workspace("walstream-matrix-") as directory:
        account = Account.for_servers()
        programs = installation(major).for_user(account, directory / "programs")
        clusters = Clusters(programs, directory, Templates(directory, account))
        try:
            with world(clusters, directory) as made:
                found = outcomes(made, EVERY)
                for other in selected_majors():
                    if other != major:
                        found += of_another_version(made, ANOTHER_VERSION, installation(other))
                wrong = surprises(made, found)
        finally:
            clusters.end()
    print(f"PostgreSQL {programs.version}")
    for each in found:
        _show(each, "  " if each not in wrong else "! ")
    return found, len(wrong)


def _show(each: Outcome, sign: str) -> None:
    print(f"{sign}{each.case.name}, {each.client}")
    if each.theirs == each.ours:
        _show_said("both", each.theirs)
    else:
        _show_said("PostgreSQL", each.theirs)
        _show_said("walstream", each.ours)


def _show_said(who: str, said: str) -> None:
    for number, line in enumerate(said.replace("\0", "\\0").splitlines()):
        print(f"      {who if number == 0 else '':12}{line.strip()}")


sys.exit(main())
