"""Messages of SCRAM that no client sends: what comes of them, with us and with a server.

``test_wire_scram_server`` has the first, ``tests/integration/test_access`` plays them to real
servers of each version and to us.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BINDINGS", "FINAL_MESSAGES", "FIRST_MESSAGES", "NONCE", "NOT_UTF8", "PLAIN", "PLUS"]

PLAIN: Final = "SCRAM-SHA-256"
PLUS: Final = "SCRAM-SHA-256-PLUS"
NONCE: Final = "fyko+d2lbbFgONRv9qkxdawL"

# A nonce that is none is taken: see `ExchangeTests.test_a_nonce_that_is_none`.
FIRST_MESSAGES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"", "08P01"),
    (b"n,,", "08P01"),
    (b"n,,n=a", "08P01"),
    (b"x,,n=,r=abc", "08P01"),
    (b"n,a=me,n=,r=abc", "0A000"),
    (b"n,,m=x,n=,r=abc", "0A000"),
    (b"n,,n=,r=abc,1=x", "08P01"),
    (b"n,,n=,r=abc,x", "08P01"),
    (b"n,,n=,r=a\x7fb", "08P01"),
    (b"n,,n=,r=a b", "08P01"),
    (b"n,,n=\0,r=abc", "08P01"),
    (b"n,,n=,r=" + b"a" * 1024, "08P01"),
)
"""The client's first, by the mechanism without ``-PLUS``; the SQLSTATE of the refusal."""

NOT_UTF8: Final = (b"n,,n=,r=\xff", b"n,,n=\xff,r=abc")
"""Likewise; but a server calls the first a nonce's fault, and takes the second, whose name nobody
looks at."""

_PROOF = 43 * "A" + "="
FINAL_MESSAGES: Final[tuple[tuple[str, str, str], ...]] = (
    ("", "08P01", "empty"),
    ("c=biws", "08P01", "malformed"),
    ("r={nonce}", "08P01", "malformed"),
    ("c=biws,r={nonce}", "08P01", "malformed"),
    ("c=biws,r={nonce},p", "08P01", "malformed"),
    ("c=!,r=other,p=AAAA", "08P01", "unexpected SCRAM channel-binding attribute"),
    ("c=eSws,r={nonce},p=" + _PROOF, "08P01", "unexpected SCRAM channel-binding attribute"),
    ("c=biws,r=other,p=AAAA", "08P01", "Malformed proof"),
    ("c=biws,r={nonce},p=!", "08P01", "Malformed proof"),
    ("c=biws,r={nonce},p=é", "08P01", "Malformed proof"),
    ("c=biws,r={nonce},p=", "08P01", "Malformed proof"),
    ("c=biws,r=other,p=" + _PROOF + ",x=y", "08P01", "Garbage found at the end"),
    ("c=biws,r={nonce}x,p=" + _PROOF, "08P01", "invalid SCRAM response"),
    ("c=biws,r=,p=" + _PROOF, "08P01", "invalid SCRAM response"),
    ("c=biws,r={nonce},p=" + _PROOF, "28P01", "password authentication failed"),
    ("c=biws,r={nonce},x=y,p=" + _PROOF, "28P01", "password authentication failed"),
    ("x" * 1025, "08P01", "too long"),
)
"""Its last, with the exchange's nonce for ``{nonce}``; the SQLSTATE and words of the refusal."""

_BARE = f"n=,r={NONCE}"
BINDINGS: Final[tuple[tuple[str, str, str, str], ...]] = (
    (f"n,,{_BARE}", PLUS, "08P01", "does not include channel binding data"),
    (f"y,,{_BARE}", PLUS, "08P01", "does not include channel binding data"),
    (f"y,,{_BARE}", PLAIN, "28000", "thinks the server does not"),
    (f"p=x,,{_BARE}", PLAIN, "08P01", "without channel binding"),
    (f"p=x,,{_BARE}", PLUS, "08P01", 'unsupported SCRAM channel-binding type "x"'),
    (f"p=tls-unique,,{_BARE}", PLUS, "08P01", "channel-binding type"),
)
"""First messages over TLS, by which mechanism; the SQLSTATE and words of the refusal."""
