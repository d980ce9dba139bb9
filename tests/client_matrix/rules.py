"""By which rules clients come in, at a server and at us: the same files for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["HBA", "PASSWORD", "ROLES", "ident_maps"]

PASSWORD: Final = "open sesame"

# Every role is one way to come in; those that only a server has are behind them.
HBA: Final = """
local     all         postgres                  trust
host      all         postgres    127.0.0.1/32  trust
host      replication postgres    127.0.0.1/32  trust
host      replication trusted     127.0.0.1/32  trust
host      replication hashed      127.0.0.1/32  md5
hostnossl replication plain       127.0.0.1/32  scram-sha-256
hostssl   replication secret      127.0.0.1/32  scram-sha-256
hostssl   replication certified   127.0.0.1/32  cert
hostssl   replication mapped      127.0.0.1/32  cert map=people
hostssl   replication certain     127.0.0.1/32  scram-sha-256 clientcert=verify-full
hostssl   replication signed      127.0.0.1/32  scram-sha-256 clientcert=verify-ca
host      replication rejected    127.0.0.1/32  reject
host      replication ghost       127.0.0.1/32  scram-sha-256
host      replication empty       127.0.0.1/32  scram-sha-256
host      replication elsewhere   192.0.2.0/24  trust
host      all         querying    127.0.0.1/32  trust
local     replication peered                    peer map=accounts
local     replication unpeered                  peer map=accounts
host      replication unknown     127.0.0.1/32  trust
host      replication nologin     127.0.0.1/32  trust
host      replication ordinary    127.0.0.1/32  trust
host      replication outdated    127.0.0.1/32  scram-sha-256
"""

# What a server is told of each; `ghost` and `unknown` there are none.
_WITH_PASSWORD: Final = f"LOGIN REPLICATION PASSWORD '{PASSWORD}'"
ROLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("hashed", "plain", "secret", "certain", "signed"), _WITH_PASSWORD),
    **dict.fromkeys(("trusted", "certified", "mapped", "rejected", "empty"), "LOGIN REPLICATION"),
    **dict.fromkeys(("elsewhere", "querying", "peered", "unpeered"), "LOGIN REPLICATION"),
    "nologin": "NOLOGIN REPLICATION",
    "ordinary": "LOGIN",
    "outdated": f"{_WITH_PASSWORD} VALID UNTIL '2001-01-01'",
}


def ident_maps(accounts: set[str]) -> str:
    """The maps: of certificates' names, and of the accounts that clients run as."""
    lines = ["people  friend  mapped", *(f"accounts  {each}  peered" for each in sorted(accounts))]
    return "".join(f"{line}\n" for line in lines)
