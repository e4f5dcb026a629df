"""What the TLS peers beside the site present."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pki

DAY = pki.DAY


@dataclass(frozen=True)
class Authorities:
    """The test's own CA and what the peers present of it, by port."""

    root: pki.Issued
    intermediate: pki.Issued
    folder: Path

    def write(self, host: str) -> None:
        """Write key and chain of every TLS peer to ``<port>.pem``."""
        now, chain = pki.NOW, self.intermediate

        def leaf(name: str = host, **validity: object) -> pki.Issued:
            return pki.issue(name, chain, san=[name], organization="Test", **validity)

        stranger = pki.issue("strange root", ca=True, organization="Elsewhere")
        presented = {
            4443: (leaf(not_after=now - DAY, not_before=now - 9 * DAY), chain),
            4444: (pki.issue(host, san=[host]),),
            4445: (leaf("elsewhere.internal"), chain),
            4446: (leaf(not_before=now + DAY, not_after=now + 9 * DAY), chain),
            4447: (leaf(),),
            4448: (leaf(not_after=now + 300 * DAY), chain),
            4449: (leaf(not_before=now - 40 * DAY, not_after=now + 1.9 * DAY), chain),
            4450: (pki.issue(host, stranger, san=[host]), stranger),
        }
        for port, (own, *others) in presented.items():
            certificates = b"".join(issued.cert_pem for issued in (own, *others))
            (self.folder / f"{port}.pem").write_bytes(own.key_pem + certificates)
            (self.folder / f"{port}.pem").chmod(0o644)
        self.folder.chmod(0o755)
