"""Ed25519 keys that sign entries; the only module that knows the library `cryptography`."""

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
    """Checks signatures."""

    key: Ed25519PublicKey

    @property
    def name(self) -> str:
        """What entries call it: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
        return hashlib.sha256(self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[
            :16
        ]

    def is_signature(self, signature: bytes, content: bytes) -> bool:
        """Whether the holder of the private key has signed this content."""
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
        """The key that checks what this one signs."""
        return PublicKey(self.key.public_key())

    @property
    def name(self) -> str:
        """What entries call it."""
        return self.public.name

    def sign(self, content: bytes) -> bytes:
        """Return the signature of a content."""
        return self.key.sign(content)


def load_private_key(file: Path) -> PrivateKey:
    """Read a private key (PEM, PKCS 8, without a pass phrase).

    Raises:
        ConfigurationError: it cannot be read, is no Ed25519 key, or everybody on the machine may
            read it.
    """
    content = _content(file, "audit.key_file")
    if stat.S_IMODE(file.stat().st_mode) & 0o007:
        raise ConfigurationError(
            f"audit.key_file {file} is open to everybody on this machine: chmod 600, or 440 for a mounted secret"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"audit.key_file {file} is no Ed25519 private key: make one with ctdeface audit key FILE"
        )
    return PrivateKey(key)


def load_public_keys(file: Path) -> tuple[PublicKey, ...]:
    """Read one or more public keys (PEM) from one file: the present one, and those that were used before.

    Raises:
        ConfigurationError: it cannot be read, or holds anything but Ed25519 public keys.
    """
    content = _content(file, "the file of public keys")
    try:
        keys = [load_pem_public_key(block) for block in _BLOCK.findall(content)]
    except (ValueError, UnsupportedAlgorithm):
        keys = []
    found = tuple(PublicKey(key) for key in keys if isinstance(key, Ed25519PublicKey))
    if not found or len(found) < len(keys):
        raise ConfigurationError(
            f"{file} does not hold Ed25519 public keys: give the .pub file that ctdeface audit key wrote"
        )
    return found


def make_key_pair(file: Path) -> PrivateKey:
    """Write a new private key, for its owner only, and its public key beside it with the ending `.pub`, for everybody.

    Raises:
        ConfigurationError: one of the files is there already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write_new(
        file.with_name(f"{file.name}.pub"), public, 0o644
    )  # first: a private key without it would be of no use
    _write_new(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
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
            f"{file} is there already, and a key is never overwritten: name another file"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
