"""The gate by PostgreSQL's rules: lines of pg_hba.conf, maps of pg_ident.conf, a file of roles.

What is refused is refused in PostgreSQL's words (``auth.c``); what they leave out, whether there is
such a user for one, is for the log. The order is PostgreSQL's, too: the rules first, then what the
client proves, then how often its role may be there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from walstream.access.near import own_addresses
from walstream.access.permit import RolePermit
from walstream.access.policy import AccessFiles, Policy, read_policy
from walstream.access.proof import check_certificate, check_map, refused
from walstream.access.resolver import HostNames
from walstream.access.role_places import Places, RolePlaces
from walstream.access.role_store import Roles, RoleStore
from walstream.access.scram import ScramExchange
from walstream.access.throttle import Lateness, Throttle
from walstream.errors import CommandError, FormatError, WalstreamError
from walstream.formats.client_address import (
    IPAddress,
    neighbourhood,
    parse_client_address,
)
from walstream.formats.hba import (
    AuthMethod,
    ClientCertificate,
    HBARule,
    IncomingConnection,
    depends_on_name,
    first_match,
)
from walstream.formats.hba_address import Near
from walstream.formats.log_text import quoted
from walstream.gates import Admission, Applicant, IGate, IPermit
from walstream.system.accounts import account_name
from walstream.wire.scram_server import WRONG_PASSWORD, ScramServerExchange
from walstream.wire.scram_verifier import DEFAULT_ITERATIONS

__all__ = ["AccessGate"]

_T = TypeVar("_T")


class Lane(Protocol):
    """Threads for what waits: for the disk, or for the network."""

    def run(self, job: Callable[[], _T]) -> Deferred[_T]:
        """Run *job*; the Deferred has its result."""

    def close(self) -> Deferred[None]:
        """Take no more jobs."""


@implementer(IGate)
class AccessGate:
    """Decides by files, which may change while it does.

    It is opened before anybody asks, and closed in the end. The rules and the maps are read again
    when it is told to `reload`; the roles by themselves when their file has changed. What is not
    right leaves in force what was there before, and the log says so.

    :param disk: runs what waits for a disk.
    :param network: runs what waits for a name server, or for the system's list of accounts, which
        may be a directory service's.
    :param has_tls: whether connections can be encrypted.
    :param has_authorities: whether clients are asked for certificates, of authorities we trust.
    :param is_exposed: whether other machines can connect, over a network that is not trusted.
    :param check: raises `FormatError` for rules that are not to take effect.
    :param throttle: says how late answers to passwords are to be.
    :param places: counts the connections of roles.
    """

    _log = Logger()

    def __init__(
        self,
        files: AccessFiles,
        clock: IReactorTime,
        disk: Lane,
        network: Lane,
        *,
        has_tls: bool = False,
        has_authorities: bool = False,
        is_exposed: bool = False,
        check: Callable[[Policy], None] = lambda policy: None,
        throttle: Lateness | None = None,
        places: Places | None = None,
        near: Callable[[], Near] = own_addresses,
        ask_name: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        self._files = files
        self._clock = clock
        self._disk = disk
        self._network = network
        self._has_tls = has_tls
        self._has_authorities = has_authorities
        self._is_exposed = is_exposed
        self._check = check
        self._throttle = Throttle(clock.seconds) if throttle is None else throttle
        self._places = RolePlaces() if places is None else places
        self._near = near
        self._names = HostNames(network, clock, ask=ask_name)
        self._store = RoleStore(files.roles)
        self._policy = Policy((), ())
        self._roles = Roles()
        self._bad_roles = ""
        self._secret = b""

    # Its life.

    def open(self) -> Deferred[None]:
        """Read the files.

        :raises FormatError: (in the Deferred) if one is not right, or cannot be read.
        """
        return Deferred.fromCoroutine(self._open())

    def close(self) -> Deferred[None]:
        """Ask no more."""
        return Deferred.fromCoroutine(self._close())

    def reload(self) -> Deferred[None]:
        """Read the files again. Who is in stays; never fails."""
        return Deferred.fromCoroutine(self._reload())

    async def _open(self) -> None:
        self._take(await self._disk.run(self._read))
        try:
            self._roles = await self._disk.run(self._store.read)
        except OSError as error:
            raise FormatError(f"cannot read the roles: {error}") from error
        self._secret = await self._disk.run(self._store.secret)

    async def _close(self) -> None:
        self._network.close()  # it may take longer than we want to
        await self._disk.close()

    async def _reload(self) -> None:
        try:
            self._take(await self._disk.run(self._read))
        except (WalstreamError, OSError) as error:
            self._log.error(
                "{hba} was not reloaded, what was read before stays in force: {reason}",
                hba=self._files.hba,
                reason=str(error),
            )
        else:
            self._log.info("{hba} was reloaded", hba=self._files.hba)
        await self._current_roles()

    def _read(self) -> Policy:
        policy = read_policy(self._files)
        self._check(policy)
        return policy

    def _take(self, policy: Policy) -> None:
        self._policy = policy
        warnings = policy.warnings(
            has_tls=self._has_tls,
            has_authorities=self._has_authorities,
            is_exposed=self._is_exposed,
        )
        for warning in warnings:
            self._log.warn("{hba}: {trouble}", hba=self._files.hba, trouble=warning)

    # Who comes.

    def admit(self, applicant: Applicant) -> Deferred[Admission]:
        """See `IGate.admit`."""
        return Deferred.fromCoroutine(self._admit(applicant))

    async def _admit(self, applicant: Applicant) -> Admission:
        where = applicant.address
        address = None if where is None else parse_client_address(where)
        policy = self._policy
        rule = await self._rule(policy, applicant, address)
        if rule is None:
            raise _no_entry(applicant)
        wants_certificate = rule.client_certificate is not ClientCertificate.ANY
        if wants_certificate and applicant.subject is None:
            raise self._no_certificate(rule)
        match rule.method:
            case AuthMethod.REJECT:
                raise _rejected(applicant, rule)
            case AuthMethod.SCRAM:
                return await self._ask_password(policy, rule, applicant, address)
            case AuthMethod.TRUST:
                said = f"user={quoted(applicant.user)}"
            case AuthMethod.PEER:
                said = await self._peer(policy, rule, applicant)
            case AuthMethod.CERT:
                assert applicant.subject is not None, "there has to be one"
                said = f"identity={quoted(applicant.subject.distinguished_name)}"
        self._certified(policy, rule, applicant)
        await self._current_roles()
        return self._permit(rule, applicant, said)

    async def _rule(
        self, policy: Policy, applicant: Applicant, address: IPAddress | None
    ) -> HBARule | None:
        near = self._near() if policy.is_by_nearness else ()
        connection = IncomingConnection(applicant.user, address, applicant.is_encrypted)
        if address is not None and depends_on_name(policy.rules, connection, near):
            names = await self._names.of(address)
            connection = IncomingConnection(
                applicant.user, address, applicant.is_encrypted, tuple(names)
            )
        return first_match(policy.rules, connection, near)

    async def _peer(self, policy: Policy, rule: HBARule, applicant: Applicant) -> str:
        account = applicant.account
        name = None if account is None else await self._network.run(lambda: account_name(account))
        if name is None:
            raise refused(rule, applicant, f"local user {account} is not known. {_matched(rule)}")
        check_map(policy.maps, rule, name, applicant, _matched(rule))
        return f"identity={quoted(name)}"

    def _no_certificate(self, rule: HBARule) -> CommandError:
        sqlstate, message = "28000", "connection requires a valid client certificate"
        if not self._has_authorities:
            sqlstate = "F0000"  # config_file_error
            message = (
                "client certificates can only be checked if a root certificate store is available"
            )
        return CommandError(sqlstate, message, log_detail=_matched(rule))

    def _certified(self, policy: Policy, rule: HBARule, applicant: Applicant) -> None:
        """Check whose certificate it is, if the rule wants to know."""
        if rule.client_certificate is ClientCertificate.VERIFY_FULL:
            assert applicant.subject is not None, "there has to be one"
            check_certificate(policy.maps, rule, applicant.subject, applicant, _matched(rule))

    # Passwords.

    async def _ask_password(
        self, policy: Policy, rule: HBARule, applicant: Applicant, address: IPAddress | None
    ) -> ScramExchange:
        roles = await self._current_roles()
        user, origin = applicant.user, _origin(applicant, address)

        def settle(error: CommandError | None) -> Deferred[IPermit]:
            return Deferred.fromCoroutine(self._settle(error, policy, rule, applicant, origin))

        server = ScramServerExchange(
            user,
            roles.verifiers.get(user),
            self._secret,
            applicant.end_point,
            mock_iterations=roles.iterations or DEFAULT_ITERATIONS,
        )
        return ScramExchange(server, settle)

    async def _settle(
        self,
        error: CommandError | None,
        policy: Policy,
        rule: HBARule,
        applicant: Applicant,
        origin: str,
    ) -> IPermit:
        """The permit, late if somebody at that place was wrong before.

        :raises CommandError: if it is refused.
        """
        if error is not None:
            error.log_detail = f"{self._why(error, applicant.user)}{_matched(rule)}"
            if error.sqlstate != WRONG_PASSWORD:
                raise error  # no guess
        delay = await self._throttle.settle(origin, is_wrong=error is not None)
        if delay:
            await deferLater(self._clock, delay)
        if error is not None:
            raise error
        self._certified(policy, rule, applicant)
        return self._permit(rule, applicant, f"identity={quoted(applicant.user)}")

    def _why(self, error: CommandError, user: str) -> str:
        if error.sqlstate != WRONG_PASSWORD:
            return f"{error.detail} " if error.detail else ""
        if user not in self._roles.roles:
            return f"Role {quoted(user)} does not exist. "
        if user not in self._roles.verifiers:
            return f"User {quoted(user)} has no password assigned. "
        # As much to say as of the others, for it takes time to write it.
        return f"Password does not match for user {quoted(user)}. "

    def _permit(self, rule: HBARule, applicant: Applicant, said: str) -> RolePermit:
        identity = f"{said} method={rule.method.value} ({rule.line.file}:{rule.line.number})"
        return RolePermit(applicant.user, identity, lambda: self._roles, self._places)

    async def _current_roles(self) -> Roles:
        """The roles, as their file has them now, if it is right."""
        known = self._roles
        try:
            roles = await self._disk.run(lambda: self._store.read(known))
        except (WalstreamError, OSError) as error:
            if str(error) != self._bad_roles:
                self._bad_roles = str(error)
                self._log.error(
                    "the roles that were read before stay in force: {reason}", reason=str(error)
                )
        else:
            if roles is not known:
                self._log.info("roles read from {path}", path=self._store.path)
            self._roles, self._bad_roles = roles, ""
        return self._roles


def _origin(applicant: Applicant, address: IPAddress | None) -> str:
    """Whom failures count for."""
    return f"account {applicant.account}" if address is None else neighbourhood(address)


def _matched(rule: HBARule) -> str:
    line = rule.line
    return f'Connection matched file "{line.file}" line {line.number}: "{line.text}"'


def _place(applicant: Applicant) -> str:
    encryption = "SSL encryption" if applicant.is_encrypted else "no encryption"
    return f'"{applicant.address or "[local]"}", user "{applicant.user}", {encryption}'


def _no_entry(applicant: Applicant) -> CommandError:
    place = _place(applicant)
    return CommandError(
        "28000", f"no pg_hba.conf entry for replication connection from host {place}"
    )


def _rejected(applicant: Applicant, rule: HBARule) -> CommandError:
    return CommandError(
        "28000",
        f"pg_hba.conf rejects replication connection for host {_place(applicant)}",
        log_detail=_matched(rule),
    )
