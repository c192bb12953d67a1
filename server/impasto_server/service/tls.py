"""The server's certificate: made once by itself, kept with its key in one private file, known by its fingerprint.

No authority vouches for a computer at home, so none is asked: a client pins the fingerprint when it is paired. The
certificate therefore never runs out, and a clock that is wrong on either side changes nothing.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from impasto_protocol.errors import AuthError, ResourceError
from impasto_protocol.home import tls_file, write_private

__all__ = ["Identity", "identity_of"]


class Identity(NamedTuple):
    """What a secure listener needs, and the SHA-256 of its certificate (DER)."""

    context: ssl.SSLContext
    fingerprint: bytes


def identity_of(home: Path) -> Identity:
    """The folder's certificate, made where there is none yet.

    Raises AuthError `auth.denied` where others may read the key or the file is damaged, ResourceError
    `resource.cannot_listen` where no certificate can be made here.
    """
    path = tls_file(home)
    if not path.exists():
        write_private(path, _make())
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise AuthError(
            "auth.denied",
            f"The key of the server's certificate in {path} can be read by others; run `chmod 600 {path}`, or delete "
            "it: a new one is made then, and paired computers must be paired again.",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(path)
        text = path.read_text(encoding="ascii")
        begin = text.index(ssl.PEM_HEADER)
        der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)])
    except (OSError, ValueError) as e:
        raise AuthError(
            "auth.denied",
            f"The server's certificate in {path} cannot be used ({e}); delete the file: a new one is made then, and "
            "paired computers must be paired again.",
        ) from e
    return Identity(context, hashlib.sha256(der).digest())


def _make() -> str:
    """Key and self-signed certificate as PEM, an elliptic curve that every TLS knows."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as e:
        raise ResourceError(
            "resource.cannot_listen",
            f"An encrypted connection needs the package cryptography ({e}); run `pip install cryptography`.",
        ) from e
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Impasto")])
    host = socket.gethostname().encode("ascii", "ignore").decode() or "impasto"
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1))
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59))  # RFC 5280: no end that means anything
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode("ascii")
