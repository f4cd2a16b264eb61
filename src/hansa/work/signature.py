"""Signatures on task bundles: a site may trust whoever read the code instead of reading it itself.

What is signed is the bundle's digest, so that a signature stays good for the same code in another
job, and for nothing else. Keys are Ed25519 (RFC 8032); a site names them in `policy.signers`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hansa.core import canonical
from hansa.errors import HansaError, IdentityError

_CONTEXT = b"hansa/bundle/1\0"
MAX_TEXT = 1024
"""Most characters of a signature that are looked at."""


def make_key(path: Path) -> str:
    """Makes a signing key in a new file for its owner alone; returns the public key.

    Raises:
      HansaError: the file exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        raise HansaError(
            f"{path} cannot be made ({error.strerror})", fix="name a new file in your own folder"
        ) from error
    return key.public_key().public_bytes_raw().hex()


def sign_bundle(digest: str, key_path: Path) -> str:
    """Signs a bundle's digest with the key in a file.

    Raises:
      HansaError: the file holds no signing key.
    """
    try:
        key = load_pem_private_key(key_path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise HansaError(f"{key_path} holds no signing key", fix="make one: hansa key FILE")
    return canonical.dumps(
        {
            "signer": key.public_key().public_bytes_raw().hex(),
            "signature": key.sign(_CONTEXT + digest.encode("ascii")).hex(),
        }
    )


def signer_of(text: str, digest: str) -> str:
    """The public key, in hexadecimal, that signed a bundle; empty if nobody did.

    Raises:
      IdentityError: there is a signature, and it is not one on this bundle.
    """
    if not text:
        return ""
    try:
        told = json.loads(text[:MAX_TEXT])
        signer, signature = str(told["signer"]), bytes.fromhex(told["signature"])
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))
        key.verify(signature, _CONTEXT + digest.encode("ascii"))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature):
        raise IdentityError(
            "the signature on the task's bundle is not good",
            fix="sign the bundle again: hansa submit JOB --sign FILE",
        ) from None
    return signer
