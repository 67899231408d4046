"""The operator's certificates over the years: what is renewed when, and that clients trust it all the time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from trainyard_operator.certificates import Certificates, issued, merged, renewed, trusts

HOST = "trainyard-operator.system.svc"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def verify(certificates: Certificates, bundle: str, now: datetime, host: str = HOST) -> None:
    """Do what a strict client does. Raises VerificationError."""
    store = Store(x509.load_pem_x509_certificates(bundle.encode()))
    policy = PolicyBuilder().store(store).time(now.replace(tzinfo=None))
    verifier = policy.build_server_verifier(x509.DNSName(host))
    verifier.verify(x509.load_pem_x509_certificates(certificates.certificate.encode())[0], [])


def test_served_certificate_verifies_for_its_host() -> None:
    certificates = issued(HOST, START)
    verify(certificates, certificates.authorities, START)
    with pytest.raises(VerificationError):
        verify(certificates, certificates.authorities, START, "other.system.svc")
    with pytest.raises(VerificationError):
        verify(certificates, issued(HOST, START).authorities, START)


def test_nothing_is_renewed_before_it_is_due() -> None:
    certificates = issued(HOST, START)
    assert renewed(certificates, HOST, START + 240 * DAY) is certificates


def test_renewal_keeps_the_authority() -> None:
    before = issued(HOST, START)
    after = renewed(before, HOST, START + 250 * DAY)
    assert after.certificate != before.certificate
    assert after.authorities == before.authorities
    verify(after, before.authorities, START + 250 * DAY)


def test_pods_trust_each_authority_before_it_signs() -> None:
    certificates = issued(HOST, START)
    bundles = {certificates.authorities}
    bundle, published = certificates.authorities, START
    for week in range(1, 52 * 25):
        now = START + 7 * week * DAY
        certificates = renewed(certificates, HOST, now)
        # A pod that has read no bundle for half a year still trusts what is served.
        if now - published > 180 * DAY:
            bundle, published = certificates.authorities, now
        verify(certificates, bundle, now)
        bundles.add(certificates.authorities)
    assert len(bundles) == 4, "an authority each eight years"
    assert certificates.authorities.count("BEGIN") == 2


def change_host(certificates: Certificates) -> Certificates:
    return replace(certificates, certificate=issued("old.svc", START).certificate)


def change_authority(certificates: Certificates) -> Certificates:
    return replace(certificates, authorities=issued(HOST, START).authorities)


@pytest.mark.parametrize("change", [change_host, change_authority], ids=["another host", "another authority"])
def test_what_does_not_fit_is_issued_again(change: Callable[[Certificates], Certificates]) -> None:
    after = renewed(change(issued(HOST, START)), HOST, START + DAY)
    verify(after, after.authorities, START + DAY)


def test_damaged_certificates_are_an_error() -> None:
    with pytest.raises(ValueError, match="PEM"):
        renewed(replace(issued(HOST, START), certificate="none"), HOST, START)


def test_bundles_are_merged_without_repeating() -> None:
    first, second = issued(HOST, START).authorities, issued(HOST, START + DAY).authorities
    both = merged(first, second, first)
    assert both.count("BEGIN") == 2
    assert trusts(both, first)
    assert trusts(both, second)
    assert not trusts(first, both)
