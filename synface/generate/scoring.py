"""Scoring: what a recognizer sees in the images as they are made. No Ray.

It stands in the generator's own actor, for two reasons. An image that a filter refuses is made again under another
key, and a stream of stages has no way back. And a shard that leaves the actor is final: what is written, lost or made
again with it is one thing, so that scoring adds nothing to what can go wrong between processes.

What is scored is the encoded image, decoded again: what every reader of the data set will see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError
from synface.generate.config import GenerateConfig
from synface.generate.plan import Identity
from synface.generate.scoring_config import Scoring
from synface.models import weights
from synface.models.embedding import Embedder
from synface.store import images, schemas, tables

WEIGHTS_FIELD = "scoring.weights"
#: rows of the references that are compared at once
TILE = 8192
#: float32 cosines this close to the largest are measured again in float64, so that the largest one does not depend
#: on how a matrix product was cut
NEAR = 1e-5


@dataclass(frozen=True)
class Scorer:
    """What is known of the scorer before its weights are loaded."""

    name: str
    sha256: str

    @property
    def metadata(self) -> dict[str, str]:
        """Entries of the images table's schema."""
        return {"scorer": self.name, "scorer_sha256": self.sha256}


@dataclass(frozen=True)
class Score:
    """What was measured of one image.

    Attributes:
        similarity: cosine to the inquiry's embedding.
        quality: norm of the raw feature.
        other: largest cosine to an earlier identity's inquiry; None where uniqueness is not asked, or none is earlier.
    """

    similarity: float
    quality: float
    other: float | None = None

    @property
    def columns(self) -> dict[str, float | None]:
        """As they stand in the images table."""
        return {
            "similarity_inquiry": self.similarity, "similarity_other": self.other, "quality": self.quality,
        }  # fmt: skip


def describe(config: GenerateConfig) -> Scorer | None:
    """The scorer that a run asks for; None where it asks for none.

    Raises:
        InputError: no such weights, or they take crops of another size.
    """
    if config.scoring.weights is None:
        return None
    stated = weights.read_checked(config.scoring.weights)
    if stated.input_size != config.image_size:
        raise InputError(
            f"scoring.weights {config.scoring.weights}: takes crops of {stated.input_size} pixels, image_size is "
            f"{config.image_size}; choose a recognizer for that size"
        )
    name = config.scoring.weights
    return Scorer(name if name in weights.PRETRAINED else stated.architecture, stated.sha256)


def digests(scorer: Scorer | None) -> dict[str, str]:
    """Digests of the inputs of scoring, by field."""
    return {} if scorer is None else {WEIGHTS_FIELD: scorer.sha256}


def references(config: GenerateConfig, scorer: Scorer, table: pa.Table | None) -> np.ndarray:
    """The inquiries' embeddings by the scorer, float32 [identities, d], in the order of `table`.

    Raises:
        InputError: the run has no identities table, the references are of another recognizer, or one is missing.
    """
    if table is None:
        raise InputError(
            "scoring.weights: similarity is measured to an inquiry's embedding, and num_identities has none; give "
            "identities (made by `embed` or `pack`)"
        )
    where = config.scoring.references
    given = table if where is None else tables.read_identities(where)
    stated = schemas.metadata_of(given.schema)
    schemas.check_embedder(
        stated, scorer.name, scorer.sha256, f"scoring: {where or config.identities}", "the scorer is"
    )
    x_nd = schemas.embeddings(given)
    if where is None:
        return x_nd
    row = {name: i for i, name in enumerate(given["identity_id"].to_pylist())}
    asked = table["identity_id"].to_pylist()
    missing = [name for name in asked if name not in row]
    if missing:
        raise InputError(f"scoring.references {where}: no identity {missing[0]!r}, nor {len(missing) - 1} others")
    return x_nd[[row[name] for name in asked]]


class Judge:
    """A loaded scorer.

    Args:
        config: of the run.
        scorer: what `describe` said of it.
        reference_nd: all inquiries' embeddings by label; read only where uniqueness is asked.
    """

    def __init__(self, config: GenerateConfig, scorer: Scorer, reference_nd: np.ndarray | None):
        assert config.scoring.weights is not None
        self.scorer = scorer
        numerics = config.numerics
        self._embedder = Embedder.from_pretrained(
            config.scoring.weights, numerics.device, numerics.threads_per_actor, numerics.micro_batch
        )
        self._all = reference_nd if config.scoring.unique_below is not None else None

    def measure(self, encoded: Sequence[bytes], identities: Sequence[Identity]) -> list[Score]:
        """Score images, one identity each; each score depends on its own image alone."""
        if not encoded:
            return []
        feature_nd = self._embedder.features(np.stack([images.decode(data) for data in encoded])).astype(np.float64)
        norm_n = np.sqrt((feature_nd * feature_nd).sum(1))
        unit_nd = feature_nd / np.maximum(norm_n, np.finfo(np.float32).tiny)[:, None]
        other_n = [None] * len(encoded) if self._all is None else self._nearest_earlier(unit_nd, identities)
        return [
            Score(_float32(_dot(x, identity.reference)), _float32(norm), other)
            for x, identity, norm, other in zip(unit_nd, identities, norm_n, other_n, strict=True)
        ]

    def _nearest_earlier(self, unit_nd: np.ndarray, identities: Sequence[Identity]) -> list[float | None]:
        """Largest cosine of each image to the inquiries of earlier identities (DCFace, eq. 11: all j < i)."""
        assert self._all is not None
        labels = [identity.label for identity in identities]
        best = np.full(len(labels), -np.inf)
        query = unit_nd.astype(np.float32)
        for start in range(0, max(labels), TILE):
            tile = self._all[start : start + TILE]
            cosine = query @ tile.T
            for i, label in enumerate(labels):
                row = cosine[i, : max(0, label - start)]
                if row.size:
                    near = np.flatnonzero(row >= row.max() - NEAR)
                    best[i] = max(best[i], *(_dot(unit_nd[i], tile[j]) for j in near))
        return [None if value == -np.inf else _float32(value) for value in best]


def refusal(score: Score, scoring: Scoring, target: float | None = None) -> str | None:
    """Why a filter refuses an image that was asked the similarity `target`, or None."""
    if scoring.least_similarity is not None and score.similarity < scoring.least_similarity:
        return f"similarity {score.similarity:.4f} below {scoring.least_similarity:g}"
    if scoring.largest_similarity is not None and score.similarity > scoring.largest_similarity:
        return f"similarity {score.similarity:.4f} above {scoring.largest_similarity:g}"
    if scoring.tolerance is not None and target is not None and abs(score.similarity - target) > scoring.tolerance:
        return f"similarity {score.similarity:.4f} further than {scoring.tolerance:g} from the asked {target:.4f}"
    if scoring.unique_below is not None and score.other is not None and score.other >= scoring.unique_below:
        return f"similarity {score.other:.4f} to another identity, not below {scoring.unique_below:g}"
    if scoring.least_quality is not None and score.quality < scoring.least_quality:
        return f"quality {score.quality:.4f} below {scoring.least_quality:g}"
    return None


def check(config: GenerateConfig) -> None:
    """InputError for filters that cannot go with what is asked."""
    if config.scoring.filters and config.variation.share_noise:
        raise InputError("scoring: an image that is made again gets noise of its own; leave variation.share_noise out")
    if config.scoring.tolerance is not None and config.variation.similarity is None:
        raise InputError(
            "scoring.tolerance: is measured from a target similarity; give variation.similarity (weights with a dial)"
        )


def _dot(x_d: np.ndarray, y_d: np.ndarray | None) -> float:
    assert y_d is not None
    return float((x_d * y_d.astype(np.float64)).sum())


def _float32(value: float) -> float:
    """As it is stored; what is compared with a threshold is what stands in the table."""
    return float(np.float32(value))
