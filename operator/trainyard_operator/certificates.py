"""The certificates of the progress server: a certificate authority (CA) and a certificate that it has signed. Pure.

Pods trust the server by the CA, which lies in each job's Secret. A pod must have a new CA before the server uses a
certificate that it signed. So two years before a CA expires, the operator makes its successor and publishes both. The
successor signs nothing until the next renewal of the served certificate, eight months later.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
"""A CA lives for ten years: each new one must reach every pod."""
SERVED_DAYS = 365
"""A served certificate lives for a year. It is renewed after two thirds of that."""
OVERLAP_DAYS = 2 * SERVED_DAYS
"""A CA that lives no longer than this gets a successor: what it signs last expires before it does."""
_CLOCK_SKEW = timedelta(hours=1)
"""A node whose clock is late by this much takes a new certificate all the same."""
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Certificates:
    """What the server serves with and what its clients trust; all of it PEM."""

    authorities: str
    """The CAs that clients trust, the newest last."""
    certificate: str
    """The served certificate, with the chain up to its CA if there is one."""
    key: str
    """The private key of the served certificate."""
    authority_key: str = ""
    """The private key of the newest CA; empty where the CA is not the operator's own."""


def issued(host: str, now: datetime) -> Certificates:
    """A new CA, and a certificate for a host name that it has signed."""
    authority, authority_key = _new_authority(now)
    certificate, key = _new_certificate(host, authority, authority_key, now)
    return Certificates(
        authorities=_pem(authority), certificate=_pem(certificate), key=_pem(key), authority_key=_pem(authority_key)
    )


def renewed(before: Certificates, host: str, now: datetime) -> Certificates:
    """The certificates with everything renewed that is due; `before` itself when nothing is.

    Raises ValueError when `before` cannot be read.
    """
    authorities = [each for each in _read(before.authorities) if each.not_valid_after_utc > now]
    authority_key = _read_key(before.authority_key)
    signers = [each for each in authorities if each.public_key() == authority_key.public_key()]
    if not signers:
        return issued(host, now)
    authority = signers[-1]
    certificates = before
    expires = authority.not_valid_after_utc - now < timedelta(days=OVERLAP_DAYS)
    if expires or _is_due(before, authorities, host, now):
        certificate, key = _new_certificate(host, authority, authority_key, now)
        certificates = replace(before, certificate=_pem(certificate), key=_pem(key))
    if expires:
        successor, successor_key = _new_authority(now)
        bundle = "".join(_pem(each) for each in [*authorities, successor])
        certificates = replace(certificates, authorities=bundle, authority_key=_pem(successor_key))
    return certificates


def merged(*bundles: str) -> str:
    """One bundle of the CAs of several, each once."""
    authorities: list[str] = []
    for bundle in bundles:
        authorities += _PEM.findall(bundle)
    return "".join(f"{authority}\n" for authority in dict.fromkeys(authorities))


def trusts(bundle: str, wanted: str) -> bool:
    """Whether a bundle has every CA of another one."""
    return set(_PEM.findall(wanted)) <= set(_PEM.findall(bundle))


def _is_due(before: Certificates, authorities: list[x509.Certificate], host: str, now: datetime) -> bool:
    """Whether another certificate must be served: this one is old, for another host, or of a CA that is gone."""
    served = _read(before.certificate)[0]
    life = served.not_valid_after_utc - served.not_valid_before_utc
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = names.get_values_for_type(x509.DNSName)
    signed = any(served.issuer == each.subject for each in authorities)
    return now >= served.not_valid_before_utc + life * 2 / 3 or hosts != [host] or not signed


def _new_authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two CAs of one bundle need two names: a client looks for the issuer of a certificate by its name.
    name = _name(f"trainyard-operator {now:%Y-%m-%dT%H:%M:%SZ}")
    builder = _builder(name, name, key, now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def _new_certificate(
    host: str, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name("trainyard-operator"), authority.subject, key, now, SERVED_DAYS)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(authority_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _read(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode())


def _read_key(text: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(text.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key of the certificate authority is none that the operator has made")  # noqa: TRY004
    return key


def _pem(part: x509.Certificate | ec.EllipticCurvePrivateKey) -> str:
    if isinstance(part, x509.Certificate):
        return part.public_bytes(Encoding.PEM).decode()
    return part.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
