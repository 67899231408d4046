"""Certificates of the cluster, and a kubeconfig for each who speaks to its API server."""

import json
from pathlib import Path

import trustme

from tests.bed.home import API, DOMAIN, HOST, STATE

FOLDER = STATE / "pki"
CA = FOLDER / "ca.crt"
SERVICE_ACCOUNTS = FOLDER / "service-accounts.key"


class Authority:
    """A certificate authority that exists as long as the cluster."""

    def __init__(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        key = FOLDER / "ca.key"
        if key.exists():
            self.ca = trustme.CA.from_pem(CA.read_bytes(), key.read_bytes())
            return
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(CA)
        # Written last: with it the authority is whole.
        _private(key, self.ca.private_key_pem.bytes())

    def issue(self, name: str, *hosts: str, common_name: str = "", group: str = "") -> tuple[Path, Path]:
        """Paths of a certificate and its key; made at the first call."""
        cert, key = FOLDER / f"{name}.crt", FOLDER / f"{name}.key"
        if not key.exists():
            # Go refuses a certificate that is for no host at all, also a client's.
            made = self.ca.issue_cert(
                *(hosts or ["client.invalid"]), common_name=common_name or name, organization_name=group or None
            )
            cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
            _private(key, made.private_key_pem.bytes())
        return cert, key

    def api_server(self) -> tuple[Path, Path]:
        """Certificate and key of the API server."""
        inside = [f"kubernetes{end}" for end in ("", ".default", ".default.svc", f".default.svc.{DOMAIN}")]
        return self.issue("api-server", HOST, "127.0.0.1", "10.96.0.1", "localhost", *inside)

    def service_accounts(self) -> Path:
        """The key that signs the tokens of service accounts."""
        self.issue("service-accounts")
        return SERVICE_ACCOUNTS

    def kubeconfig(self, name: str, group: str = "", server: str = API) -> Path:
        """Path of a kubeconfig for a user of a group."""
        cert, key = self.issue(name.replace(":", "-"), common_name=name, group=group)
        file = FOLDER / f"{name.replace(':', '-')}.kubeconfig"
        cluster = {"server": server, "certificate-authority": str(CA)}
        user = {"client-certificate": str(cert), "client-key": str(key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "trainyard-bed", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "trainyard-bed", "context": {"cluster": "trainyard-bed", "user": name}}],
            "current-context": "trainyard-bed",
        }
        _private(file, json.dumps(config, indent=1).encode())
        return file


def _private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
