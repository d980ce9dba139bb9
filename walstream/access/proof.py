"""What a client has proved to be by other means than a password, and whether that will do."""

from __future__ import annotations

from collections.abc import Sequence

from walstream.errors import CommandError
from walstream.formats.hba import AuthMethod, HBARule
from walstream.formats.ident_map import IdentLine, may_be
from walstream.formats.log_text import quoted
from walstream.gates import Applicant
from walstream.wire.encryption import Subject

__all__ = ["check_certificate", "check_map", "refused"]

# What PostgreSQL says (`auth_failed`), by the method of the rule.
_FAILED = {
    AuthMethod.PEER: ("28000", "Peer"),
    AuthMethod.CERT: ("28000", "certificate"),
    AuthMethod.SCRAM: ("28P01", "password"),
    AuthMethod.TRUST: ("28000", '"trust"'),
}


def refused(rule: HBARule, applicant: Applicant, why: str) -> CommandError:
    """The client is not who it says.

    :param why: for the log.
    """
    sqlstate, method = _FAILED[rule.method]
    return CommandError(
        sqlstate, f'{method} authentication failed for user "{applicant.user}"', log_detail=why
    )


def check_map(
    maps: Sequence[IdentLine], rule: HBARule, name: str, applicant: Applicant, matched: str
) -> None:
    """See whether who is *name* outside may come in as whom it says.

    :param matched: what the log says of the rule.
    :raises CommandError: if not.
    """
    if may_be(maps, rule.ident_map, name, applicant.user):
        return
    if rule.ident_map is None:
        why = (
            f"provided user name ({quoted(applicant.user)}) and authenticated user name "
            f"({quoted(name)}) do not match"
        )
    else:
        why = (
            f'no match in usermap "{rule.ident_map}" for user {quoted(applicant.user)} '
            f"authenticated as {quoted(name)}"
        )
    raise refused(rule, applicant, f"{why}. {matched}")


def check_certificate(
    maps: Sequence[IdentLine],
    rule: HBARule,
    certificate: Subject,
    applicant: Applicant,
    matched: str,
) -> None:
    """See whether the name in a client's certificate lets it come in as whom it says.

    :raises CommandError: if not.
    """
    is_whole = rule.uses_distinguished_name
    name = certificate.distinguished_name if is_whole else certificate.common_name
    if not name:
        raise refused(rule, applicant, f"client certificate contains no name. {matched}")
    check_map(maps, rule, name, applicant, matched)
