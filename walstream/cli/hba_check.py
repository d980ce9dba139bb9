"""``walstream hba-check``: which rule a connection would meet, and what it would have to prove."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from walstream.access.near import own_addresses
from walstream.access.policy import AccessFiles, read_policy
from walstream.access.resolver import host_names
from walstream.access.role_store import RoleStore
from walstream.errors import FormatError
from walstream.formats.client_address import parse_client_address
from walstream.formats.hba import (
    AuthMethod,
    ClientCertificate,
    HBARule,
    IncomingConnection,
    depends_on_name,
    first_match,
)

__all__ = ["FAILURE", "REFUSED", "add_arguments", "run"]

#: A file is not right, or the command line is wrong.
FAILURE = 2
#: Such a connection is refused, whatever it proves.
REFUSED = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("user", metavar="USER", help="the user that the client says it is")
    parser.add_argument(
        "address", metavar="ADDRESS", help="where it comes from: an IP address, or local"
    )
    parser.add_argument("--tls", action="store_true", help="it is encrypted")
    parser.add_argument("--hba", metavar="FILE", required=True, help="the rules")
    parser.add_argument("--ident", metavar="FILE", help="the maps")
    parser.add_argument("--roles", metavar="FILE", help="the roles: then they are looked at, too")


def run(arguments: Namespace) -> int:
    """Read the files, and show what a connection meets."""
    files = AccessFiles(arguments.hba, arguments.ident, arguments.roles or "")
    policy = read_policy(files)
    for warning in policy.warnings(has_tls=True, has_authorities=True):
        sys.stderr.write(f"walstream hba-check: {warning}\n")
    if (open_rule := policy.open_to_strangers()) is not None:
        sys.stderr.write(
            "walstream hba-check: where other machines can connect, and without --trust-network, "
            f"these rules are not taken: trust asks nothing of them: {open_rule.line.place}\n"
        )
    near = own_addresses()
    connection = _connection(arguments)
    if depends_on_name(policy.rules, connection, near):
        names = tuple(host_names(str(connection.address)))
        sys.stdout.write(f"name of {arguments.address}: {', '.join(names) or 'none'}\n")
        connection = IncomingConnection(
            connection.user, connection.address, connection.is_encrypted, names
        )
    rule = first_match(policy.rules, connection, near)
    if rule is None:
        sys.stdout.write("no line is about it: there is no entry, it is refused\n")
        return REFUSED
    sys.stdout.write(f"{rule.line.file}:{rule.line.number}: {rule.line.text}\n")
    for line in _meaning(rule, arguments.user):
        sys.stdout.write(f"{line}\n")
    if rule.method is AuthMethod.SCRAM and arguments.roles is not None:
        return _look_at_role(arguments)
    return REFUSED if rule.method is AuthMethod.REJECT else 0


def _connection(arguments: Namespace) -> IncomingConnection:
    if arguments.address == "local":
        if arguments.tls:
            raise FormatError("a local connection, over a UNIX socket, is not encrypted")
        return IncomingConnection(arguments.user, None, False)
    try:
        address = parse_client_address(arguments.address)
    except ValueError:
        raise FormatError(f"{arguments.address!r} is neither an IP address nor local") from None
    return IncomingConnection(arguments.user, address, arguments.tls)


_PROOFS = {
    AuthMethod.TRUST: "it has to prove nothing, and comes in",
    AuthMethod.REJECT: "it is refused",
    AuthMethod.SCRAM: "it has to know the password of role {user} (SCRAM-SHA-256)",
    AuthMethod.PEER: "its account on this machine has to be {user}",
    AuthMethod.CERT: "it has to have a certificate whose {name} is {user}",
}


def _meaning(rule: HBARule, user: str) -> Iterator[str]:
    name = "distinguished name" if rule.uses_distinguished_name else "common name"
    wanted = f'"{user}"'
    if rule.ident_map is not None:
        wanted = f'one that map "{rule.ident_map}" lets be "{user}"'
    yield _PROOFS[rule.method].format(user=wanted, name=name)
    if rule.method is AuthMethod.CERT or rule.method is AuthMethod.REJECT:
        return
    match rule.client_certificate:
        case ClientCertificate.VERIFY_CA:
            yield "and to have a certificate of an authority that is trusted"
        case ClientCertificate.VERIFY_FULL:
            yield f'and to have a certificate whose {name} is "{user}"'


def _look_at_role(arguments: Namespace) -> int:
    store = RoleStore(arguments.roles)
    roles = store.read()
    if arguments.user in roles.verifiers:
        limits = str(roles.roles[arguments.user].limits)
        sys.stdout.write(f'role "{arguments.user}" has a password; limits: {limits or "none"}\n')
        return 0
    what = "has no password" if arguments.user in roles.roles else "does not exist"
    sys.stdout.write(f'role "{arguments.user}" {what} in {store.path}: it is refused\n')
    return REFUSED
