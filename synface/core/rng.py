"""Keyed randomness: every random number is a pure function of a key, never of order, batch or worker.

The generator is the counter-based Philox4x64 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), keyed by a hash of the parts of the key. Same key, same numbers: bitwise on the same
numpy version and hardware.
"""

import hashlib

import numpy as np

KeyPart = int | str


def key_digest(*parts: KeyPart) -> bytes:
    """16 bytes that depend on every part and on their types and order ("1" and 1 differ)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str | np.integer):
            raise TypeError(f"key parts are int or str, got {type(part).__name__}: {part!r}")
        text = part if isinstance(part, str) else str(int(part))
        tag = b"s" if isinstance(part, str) else b"i"
        raw = text.encode()
        digest.update(tag + len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


def generator(*parts: KeyPart) -> np.random.Generator:
    """A numpy Generator for one key, e.g. ``generator(seed, identity_id, sample, "noise")``."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key_digest(*parts), "little")))


def derived_seed(*parts: KeyPart) -> int:
    """An int64 seed in [0, 2**63) for libraries that want an integer."""
    return int.from_bytes(key_digest(*parts)[:8], "little") >> 1


def normal_rows(seed: int, keys: list[tuple[KeyPart, ...]], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 [len(keys), *shape]; row i depends on ``(seed, *keys[i])`` alone."""
    out = np.empty((len(keys), *shape), np.float32)
    for row, key in zip(out, keys, strict=True):
        generator(seed, *key).standard_normal(dtype=np.float32, out=row)
    return out


def permutation(size: int, *parts: KeyPart) -> np.ndarray:
    """A keyed permutation of ``range(size)``, int64."""
    return generator(*parts).permutation(size)
