"""An issuer of OpenID Connect tokens, and a certification authority, for tests."""

import base64
import hashlib
import ipaddress
import json
import time
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def base64url(data):
    """Without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens (RS256) and publishes its key as a JWK set."""

    def __init__(self, url, audience="sts.amazonaws.com"):
        self.url, self.audience = url, audience
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self.key.public_key().public_numbers()
        self.kid = hashlib.sha256(str(numbers.n).encode()).hexdigest()[:8]
        n = numbers.n.to_bytes(256, "big")
        e = numbers.e.to_bytes(3, "big")
        self.jwk = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid}
        self.jwk |= {"n": base64url(n), "e": base64url(e)}

    @property
    def jwks(self):
        """The JWK set as it is published."""
        return json.dumps({"keys": [self.jwk]})

    def token(self, subject="system:serviceaccount:default:app", *, header=None, **claims):
        """A token that is good for ten minutes; claims that are None are left out."""
        now = int(time.time())
        body = {"iss": self.url, "aud": [self.audience], "sub": subject}
        body |= {"iat": now, "nbf": now, "exp": now + 600, **claims}
        body = {name: value for name, value in body.items() if value is not None}
        head = {"alg": "RS256", "kid": self.kid, "typ": "JWT", **(header or {})}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (head, body))
        if head["alg"] == "none":
            return f"{signed}."
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{base64url(signature)}"


class Authority:
    """A CA, and what it issues: a root, or an intermediate below `parent`."""

    def __init__(self, name="Test CA", parent=None):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.revoked = []
        usage = x509.KeyUsage(
            digital_signature=False, key_cert_sign=True, crl_sign=True,
            content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        issuer = parent or self
        builder = issuer._builder(self.name, self.key.public_key(), days=365)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        builder = builder.add_extension(usage, critical=True)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    def _builder(self, subject, public_key, days):
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
        builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=2))
        return builder.not_valid_after(now + timedelta(days=days))

    def revoke(self, certificate):
        """From now on in the revocation list."""
        self.revoked.append(certificate.serial_number)

    def revocations(self):
        """The revocation list (PEM), good for a day."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now).next_update(now + timedelta(days=1))
        builder = builder.add_extension(x509.CRLNumber(len(self.revoked) + 1), critical=False)
        key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(key, critical=False)
        for serial in self.revoked:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, common_name, *, days=30, kind="ec", server=False):
        """A certificate and its key."""
        if kind == "ec":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=False, crl_sign=False,
            content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        alternative = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = self._builder(subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), False)
        return builder.sign(self.key, hashes.SHA256()), key


def pem(thing):
    """A certificate or a key as PEM."""
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM).decode()
    return thing.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def sign_x509(certificate, key, *, path, query, body, host, region, chain=(), when=None):
    """The headers of a request that is signed as IAM Roles Anywhere documents it."""
    when = (when or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    der = certificate.public_bytes(serialization.Encoding.DER)
    algorithm = "AWS4-X509-RSA-SHA256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = "AWS4-X509-ECDSA-SHA256"
    headers = {
        "content-type": "application/json",
        "host": host,
        "x-amz-date": when,
        "x-amz-x509": base64.b64encode(der).decode(),
    }
    if chain:
        ders = [c.public_bytes(serialization.Encoding.DER) for c in chain]
        headers["x-amz-x509-chain"] = ",".join(base64.b64encode(d).decode() for d in ders)
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    hashed = hashlib.sha256(body).hexdigest()
    canonical = f"POST\n{path}\n{query}\n{lines}\n{names}\n{hashed}"
    scope = f"{when[:8]}/{region}/rolesanywhere/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    message = f"{algorithm}\n{when}\n{scope}\n{digest}".encode()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    else:
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    credential = f"{certificate.serial_number}/{scope}"
    headers["authorization"] = (
        f"{algorithm} Credential={credential}, SignedHeaders={names}, Signature={signature.hex()}"
    )
    return headers
