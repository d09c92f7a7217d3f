"""A certificate authority for one test: good certificates, and those that must not be believed."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

LOOPBACK = ("localhost", "127.0.0.1")
_DAY = timedelta(days=1)


class Issued(Struct, frozen=True):
    cert: Path
    """The certificate and its authority's, as PEM."""
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


class Authority:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Authority of {folder.name}")])
        self._serials = 0
        self._own = self._sign(self._name, self._key.public_key(), None, expired=False)
        self.cert = folder / "authority.pem"
        """What those trust who trust it."""
        self.cert.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def issue(self, *hosts: str, expired: bool = False) -> Issued:
        """A certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
        ]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        cert = self._sign(name, key.public_key(), names, expired=expired)
        issued = Issued(self._folder / f"{self._serials}.pem", self._folder / f"{self._serials}.key")
        pem = serialization.Encoding.PEM
        issued.cert.write_bytes(cert.public_bytes(pem) + self._own.public_bytes(pem))
        issued.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return issued

    def trusting(self) -> ssl.SSLContext:
        """For a client that trusts it and nobody else."""
        return ssl.create_default_context(cafile=str(self.cert))

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, hosts: list[x509.GeneralName] | None, *, expired: bool
    ) -> x509.Certificate:
        """hosts: None makes an authority."""
        self._serials += 1
        end = datetime.now(UTC) + (-_DAY if expired else _DAY)
        public = self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(self._serials)
            .not_valid_before(end - 10 * _DAY)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())
