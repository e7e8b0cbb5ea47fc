"""Ed25519 keys that sign entries; only this module imports `cryptography`."""

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ctdeface_shared.errors import ConfigurationError

_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that checks signatures."""

    key: Ed25519PublicKey

    @property
    def name(self) -> str:
        """Return the key's name: the first 16 hexadecimal digits of its SHA-256."""
        raw = self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return hashlib.sha256(raw).hexdigest()[:16]

    def is_signature(self, signature: bytes, content: bytes) -> bool:
        """Return whether the private key signed this content."""
        try:
            self.key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key that signs entries."""

    key: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        """Return the public key."""
        return PublicKey(self.key.public_key())

    @property
    def name(self) -> str:
        """Return the name of its public key."""
        return self.public.name

    def sign(self, content: bytes) -> bytes:
        """Return the signature of a content."""
        return self.key.sign(content)


def load_private_key(file: Path) -> PrivateKey:
    """Read a private key (PEM, PKCS 8, without a passphrase).

    Raises:
        ConfigurationError: the file cannot be read, is not an Ed25519 key, or gives access to
            users outside its group.
    """
    content = _content(file, "audit.key_file")
    if stat.S_IMODE(file.stat().st_mode) & 0o007:
        raise ConfigurationError(
            f"audit.key_file {file} is open to every user of this machine: "
            "run chmod 600, or 440 for a mounted secret"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"audit.key_file {file} is not an Ed25519 private key: "
            "make one with ctdeface audit key FILE"
        )
    return PrivateKey(key)


def load_public_keys(file: Path) -> tuple[PublicKey, ...]:
    """Read public keys (PEM), the current and earlier ones.

    Raises:
        ConfigurationError: the file cannot be read, or contains no key or a key of another type.
    """
    content = _content(file, "the file of public keys")
    try:
        keys = [load_pem_public_key(block) for block in _BLOCK.findall(content)]
    except (ValueError, UnsupportedAlgorithm):
        keys = []
    found = tuple(PublicKey(key) for key in keys if isinstance(key, Ed25519PublicKey))
    if not found or len(found) < len(keys):
        raise ConfigurationError(
            f"{file} does not contain Ed25519 public keys only: "
            "give the .pub file that ctdeface audit key wrote"
        )
    return found


def make_key_pair(file: Path) -> PrivateKey:
    """Write a new private key and its public key.

    The public key's file has the additional suffix `.pub`. Only the owner can read the private
    key; everyone can read the public key.

    Raises:
        ConfigurationError: one of the files exists already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The public key comes first: a private key without it would be useless.
    _write_new(file.with_name(f"{file.name}.pub"), public, 0o644)
    _write_new(file, private, 0o600)
    return PrivateKey(key)


def _content(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{what} {file} cannot be read: {error.strerror}") from None


def _write_new(file: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigurationError(
            f"{file} exists already, and a key is never overwritten: name another file"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
