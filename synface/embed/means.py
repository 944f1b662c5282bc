"""From embeddings of images to one unit embedding per identity."""

import numpy as np

from synface.core.errors import InputError


def first_samples(identity: list[str], sample_n: np.ndarray, limit: int | None) -> dict[str, np.ndarray]:
    """Row numbers of each identity's first `limit` samples, by (sample, row); identities sorted."""
    order: list[int] = np.lexsort((np.arange(len(sample_n)), sample_n)).tolist()
    rows: dict[str, list[int]] = {name: [] for name in sorted(set(identity))}
    for row in order:
        rows[identity[row]].append(row)
    return {name: np.array(found[:limit]) for name, found in rows.items()}


def identity_means(embedding_nd: np.ndarray, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Unit mean direction of each identity's unit embeddings, float32 [identities, d].

    Sums run in the order of the rows, in float64: equal for every distribution of the work.

    Raises:
        InputError: an identity whose embeddings cancel or are not finite.
    """
    means = np.stack([embedding_nd[index].astype(np.float64).sum(0) for index in rows.values()])
    norm = np.linalg.norm(means, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 1e-6)))
    if len(bad):
        name = list(rows)[int(bad[0])]
        raise InputError(
            f"identity {name!r}: its embeddings have no mean direction (norm {norm[bad[0]]:.3g}); {len(bad)} such "
            "identities: weights that did not train, or damaged images"
        )
    return (means / norm[:, None]).astype(np.float32)
