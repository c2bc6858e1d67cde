"""What a share travels through: X25519 (RFC 7748), HKDF (RFC 5869) and AES-CCM with short tags.

The server forwards sealed shares and cannot read or change one. Who owns a public key is another
matter: see `recast_core.secure.members`.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
SALT_BYTES = 8
# As in the CCM_8 suites of TLS: a forgery succeeds once in 2 to the power of 64.
TAG_BYTES = 8
# A key seals one share and no other.
_NONCE = bytes(12)
# A private key to try public ones with; it protects nothing.
_ANYBODY = bytes(range(KEY_BYTES))


class ForgedError(ValueError):
    """A sealed share that is not what its owner sent to this member."""


@lru_cache(maxsize=1 << 16)
def public_key(private: bytes) -> bytes:
    """The public key of a private one, 32 bytes each."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


# A thousand simulated clients share one process: each pair agrees once.
@lru_cache(maxsize=1 << 17)
def _agreed(private: bytes, public: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError as error:  # a point of small order, or no point
        raise ForgedError("a public key that nobody can have") from error


def is_key(public: bytes) -> bool:
    """Whether somebody can have a public key: with a few points nobody can agree on anything."""
    try:
        _agreed(_ANYBODY, public)
    except ForgedError:
        return False
    return True


def proof(private: bytes, other: bytes) -> bytes:
    """What only the owners of two keys can make, 16 bytes, the same for both; it seals nothing.

    Args:
        private: key of one of them.
        other: public key of the other.

    Raises:
        ForgedError: ``other`` is no key.
    """
    names = b"".join(sorted((public_key(private), other)))
    derived = HKDF(hashes.SHA256(), 16, None, b"recast key proof 1" + names)
    return derived.derive(_agreed(private, other))


def _sealer(private: bytes, public: bytes, salt: bytes, context: bytes, names: bytes) -> AESCCM:
    derived = HKDF(hashes.SHA256(), 16, salt, b"recast share 1" + context + names)
    return AESCCM(derived.derive(_agreed(private, public)), TAG_BYTES)


def seal(private: bytes, to: bytes, salt: bytes, context: bytes, share: bytes) -> bytes:
    """A share for the owner of the public key ``to``: ``TAG_BYTES`` longer.

    Args:
        private: key of the sender.
        to: public key of the member.
        salt: ``SALT_BYTES`` that the sender never uses again.
        context: of which sum the share is.
        share: to be sealed.

    Raises:
        ForgedError: ``to`` is no key.
    """
    names = public_key(private) + to
    return _sealer(private, to, salt, context, names).encrypt(_NONCE, share, None)


def unseal(private: bytes, sender: bytes, salt: bytes, context: bytes, sealed: bytes) -> bytes:
    """The share that the owner of the public key ``sender`` sealed for this member.

    Raises:
        ForgedError: it did not, or not for this sum.
    """
    names = sender + public_key(private)
    try:
        return _sealer(private, sender, salt, context, names).decrypt(_NONCE, sealed, None)
    except InvalidTag as error:
        raise ForgedError("a sealed share was changed, or is another sum's") from error
