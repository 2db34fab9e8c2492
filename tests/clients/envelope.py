"""The envelope format of docs/envelope.md, a second time: from the document, on other primitives."""

import hashlib
import hmac
import uuid

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

ZERO_IV = bytes(12)
SCHEMES = {"hmac-kdf": 1, "ecdh": 2, "rsa-oaep": 3}


def text(value):
    """A text with its length in bytes before it."""
    data = value.encode()
    return len(data).to_bytes(4, "big") + data


def expand(key, info, length):
    """HKDF-Expand with SHA-256 (RFC 5869, section 2.3)."""
    out, block = b"", b""
    while len(out) < length:
        block = hmac.digest(key, block + info + bytes([len(out) // 32 + 1]), hashlib.sha256)
        out += block
    return out[:length]


def derive(backing_key, label, nonce, digest):
    """What the token does: SP 800-108 in counter mode, one block of HMAC-SHA-256."""
    one, bits = (1).to_bytes(4, "big"), (256).to_bytes(4, "big")
    return hmac.digest(backing_key, one + label + b"\0" + nonce + digest + bits, hashlib.sha256)


def header(vector):
    """The first 67 bytes of an envelope."""
    key_id = vector["key_id"]
    kind = 1 if key_id.startswith("mrk-") else 0
    named = uuid.UUID(key_id.removeprefix("mrk-")).bytes
    start = bytes([1, SCHEMES[vector["scheme"]], kind])
    return start + named + bytes.fromhex(vector["backing_key_id"]) + bytes.fromhex(vector["nonce"])


def associated_data(vector):
    """What an envelope is bound to."""
    account, region, key_id = vector["account"], vector["region"], vector["key_id"]
    data = header(vector) + text(account)
    if key_id.startswith("mrk-"):
        data += text("") + text("")
    else:
        data += text(region) + text(f"arn:aws:kms:{region}:{account}:key/{key_id}")
    context = sorted(vector["context"].items(), key=lambda pair: pair[0].encode())
    data += text(str(len(context)))
    return data + b"".join(text(name) + text(value) for name, value in context)


def envelope(vector):
    """The steps from a vector's inputs to the envelope, by the names that the vector gives them."""
    bound_to = associated_data(vector)
    digest = hashlib.sha256(bound_to).digest()
    label = b"strongroom message secret v1"
    nonce = bytes.fromhex(vector["nonce"])
    secret = derive(bytes.fromhex(vector["backing_key"]), label, nonce, digest)
    keys = expand(secret, b"strongroom body key and commitment v1", 64)
    body_key, commitment = keys[:32], keys[32:]
    body = AESGCM(body_key).encrypt(ZERO_IV, bytes.fromhex(vector["plaintext"]), digest)
    steps = {
        "associated_data": bound_to,
        "associated_data_sha256": digest,
        "message_secret": secret,
        "body_key": body_key,
        "commitment": commitment,
        "envelope": header(vector) + commitment + body,
    }
    return {name: data.hex() for name, data in steps.items()}


def point(private):
    """The public key as an uncompressed point."""
    form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    return private.public_key().public_bytes(*form)


def private_key(number):
    """A key of P-256 from its number in hex."""
    return ec.derive_private_key(int(number, 16), ec.SECP256R1())


def holders(vector):
    """The steps to an envelope for several holders, by ecdh."""
    bound_to = associated_data(vector)
    digest = hashlib.sha256(bound_to).digest()
    ephemeral = private_key(vector["ephemeral_key"])
    public, shared = point(ephemeral), bytes.fromhex(vector["shared_secret"])
    wraps = bytes([len(vector["holders"])]) + public
    for holder in map(private_key, vector["holders"]):
        theirs = point(holder)
        agreed = ephemeral.exchange(ec.ECDH(), holder.public_key())
        info = b"strongroom ecdh wrap v1" + public + theirs + digest
        wrapping = hashlib.sha256((1).to_bytes(4, "big") + agreed + info).digest()
        check = hashlib.sha256(b"strongroom public key check v1" + theirs).digest()[:8]
        wraps += check + aes_key_wrap(wrapping, shared)
    authenticator = bytes.fromhex(vector["authenticator"])
    mixing = expand(authenticator, b"strongroom message secrets v1", 32)
    one, bits = (1).to_bytes(4, "big"), (256).to_bytes(4, "big")
    nonce = bytes.fromhex(vector["nonce"])
    source = one + b"strongroom message secret v1\0" + nonce + digest + bits
    secret = hmac.digest(mixing, shared + source, hashlib.sha256)
    keys = expand(secret, b"strongroom body key and commitment v1", 64)
    body = AESGCM(keys[:32]).encrypt(ZERO_IV, bytes.fromhex(vector["plaintext"]), digest)
    before = header(vector) + keys[32:] + wraps
    key = expand(authenticator, b"strongroom envelopes v1", 32)
    mac = hmac.digest(key, digest + before + body, hashlib.sha256)
    steps = {
        "associated_data": bound_to,
        "wraps": wraps,
        "message_secret": secret,
        "mac": mac,
        "envelope": before + mac + body,
    }
    return {name: data.hex() for name, data in steps.items()}


def value(vector):
    """The steps to a sealed secret value."""
    start = b"\x01" + vector["kind"].encode()
    bound_to = start + vector["secret_arn"].encode() + b"\0" + vector["version_id"].encode()
    gcm = AESGCM(bytes.fromhex(vector["data_key"]))
    sealed = start + gcm.encrypt(ZERO_IV, bytes.fromhex(vector["value"]), bound_to)
    return {"associated_data": bound_to.hex(), "sealed": sealed.hex()}


def store_key(vector):
    """The steps to a wrapped store key, and to the keys that are derived from it."""
    site = hashlib.sha256(vector["site"].encode()).digest()
    label, nonce = b"strongroom store secret v1", bytes.fromhex(vector["nonce"])
    secret = derive(bytes.fromhex(vector["backing_key"]), label, nonce, site)
    wrapping = expand(secret, b"strongroom store key wrapping v1", 32)
    key = bytes.fromhex(vector["store_key"])
    steps = {
        "message_secret": secret,
        "wrapping_key": wrapping,
        "wrapped": aes_key_wrap(wrapping, key),
        "derived": expand(key, vector["derived_label"].encode(), 32),
    }
    return {name: data.hex() for name, data in steps.items()}


STEPS = {"envelope": envelope, "holders": holders, "value": value, "store-key": store_key}
