"""Options about TLS towards clients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from twisted.python import usage

from walstream.tap.group import CommandOptions
from walstream.tap.values import one_of

if TYPE_CHECKING:
    from walstream.tls.server import ServerTLS

__all__ = ["TLSOptions"]


class TLSOptions(CommandOptions):
    """With what clients' connections are encrypted. SIGHUP reads all of it again."""

    optParameters = [
        [
            "tls-certificate",
            None,
            None,
            "Offer TLS, with this certificate (PEM), followed by those that lead to an authority.",
        ],
        ["tls-key", None, None, "The certificate's private key, which nobody else may read."],
        [
            "tls-ca",
            None,
            None,
            "Ask clients for a certificate, and take those that these authorities have signed.",
        ],
        [
            "tls-crl",
            None,
            None,
            "With --tls-ca: certificates that have been revoked (PEM), a file or a directory.",
        ],
        ["tls-min-version", None, "TLSv1.2", "The oldest version to speak: TLSv1.2 or TLSv1.3."],
    ]

    def postOptions(self) -> None:
        """Read the files."""
        super().postOptions()
        self.tls: ServerTLS | None = self._tls()

    def _tls(self) -> ServerTLS | None:
        from walstream.tls.extra import require
        from walstream.tls.versions import TLSVersion

        least = self.checked("tls-min-version", one_of(TLSVersion)) or TLSVersion.V1_2
        if self["tls-certificate"] is None:
            for name in ("tls-key", "tls-ca", "tls-crl"):
                if self[name] is not None:
                    raise usage.UsageError(
                        f"--{name} is of no use without --tls-certificate: give both, or none"
                    )
            return None
        self.required("tls-key", "the private key of --tls-certificate")
        if self["tls-crl"] is not None and self["tls-ca"] is None:
            raise usage.UsageError(
                "--tls-crl is of no use without --tls-ca: clients are asked for no certificate"
            )
        self.checked("tls-certificate", lambda text: require(f"--tls-certificate={text}"))
        from walstream.tls.server import ServerFiles, ServerTLS

        files = ServerFiles(
            self._path("tls-certificate") or Path(),
            self._path("tls-key") or Path(),
            self._path("tls-ca"),
            self._path("tls-crl"),
            least,
        )
        return self.checked("tls-certificate", lambda _: ServerTLS(files))

    def _path(self, name: str) -> Path | None:
        """Whole, since a daemon changes its directory."""
        text = self[name]
        return None if text is None else Path(text).absolute()
