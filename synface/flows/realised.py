"""`synface pack --verify-realised IMAGES`: how far apart the identities are *as generated*, which alone counts.

The images are embedded, one mean direction per identity, and those are measured as a packing is. With the identities
that were asked for, each realised mean is also compared with the embedding that it was to have.
"""

import json
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from synface.core import sphere
from synface.core.errors import InputError
from synface.embed import run as embed_run
from synface.embed import sources
from synface.embed.config import EmbedConfig
from synface.models import weights
from synface.ops.cluster import versions
from synface.pack import bounds
from synface.settings import InputUri, StageConfig
from synface.store import artifact
from synface.store import uri as uris
from synface.store.schemas import check_embedder, embeddings, metadata_of
from synface.store.tables import read_identities

KIND = "realised"
FILE = "realised.json"


class RealisedConfig(StageConfig):
    """Max and nearest cosines of identities as generated."""

    verb: ClassVar[str] = "realised"

    verify_realised: InputUri = Field(description="images table of the generated identities")
    weights: InputUri = Field(default="heads-fr-tiny", description="recognizer that judges")
    identities: InputUri | None = Field(default=None, description="the identities table that was asked for")
    images_per_identity: int | None = Field(default=None, ge=1, description="only the first so many samples of each")


def plan(config: RealisedConfig) -> dict[str, Any]:
    """What would be embedded."""
    return embed_run.plan(_embed_config(config))


def run(config: RealisedConfig) -> dict[str, Any]:
    """Embed, measure, write `realised.json`; a finished one answers at once.

    Returns:
        num_identities, dim, max_cosine, mean_nearest_cosine, nearest_cosine quantiles, bound, gap, iid_max_cosine,
        effective_dimension and the bound there; with identities also the cosine of each realised mean to what was
        asked, the share whose nearest asked identity is another one, and max_cosine_asked.

    Raises:
        InputError: no identity of the images is in the identities table, or their embedders differ.
    """
    recognizer = weights.read_config(config.weights)
    asked = None if config.identities is None else _asked(config.identities, recognizer)
    opened = artifact.open_output(config, _digests(config, recognizer))
    if opened.finished is not None:
        return {"uri": config.output, "cached": True, **opened.finished.numbers}
    made = embed_run.run(_embed_config(config))
    table = read_identities(made["uri"])
    x_nd = embeddings(table)
    if len(x_nd) < 2:
        raise InputError(f"{config.verify_realised}: holds one identity; a packing needs at least two")
    numbers = measured(x_nd) | {"images": made["images"]}
    if asked is not None:
        numbers |= against_asked(
            table["identity_id"].to_pylist(), x_nd, asked["identity_id"].to_pylist(), embeddings(asked)
        )
    entry = artifact.write_file(config.output, FILE, (json.dumps(numbers, indent=1, sort_keys=True) + "\n").encode())
    artifact.commit(config, opened, KIND, [entry], numbers, versions())
    return {"uri": config.output, "cached": False, **numbers}


def measured(x_nd: np.ndarray) -> dict[str, Any]:
    """What a packing states, of unit rows float32 [n, d]."""
    n, d = x_nd.shape
    nearest_n = sphere.nearest_cosine(x_nd)[0].astype(np.float64)
    effective = max(sphere.effective_dimension(x_nd), 2)
    largest, bound = float(nearest_n.max()), bounds.best(n, d)
    return {
        "num_identities": n,
        "dim": d,
        "max_cosine": largest,
        "mean_nearest_cosine": float(nearest_n.mean()),
        "nearest_cosine_quantiles": {str(q): float(np.quantile(nearest_n, q)) for q in (0.05, 0.5, 0.95, 0.99)},
        "bound": bound,
        "gap": largest - bound,
        "iid_max_cosine": bounds.iid_max_cosine(n, d),
        "iid_mean_nearest_cosine": bounds.iid_mean_nearest_cosine(n, d),
        "effective_dimension": effective,
        "bound_at_effective_dimension": bounds.best(n, effective),
    }


def against_asked(ids: list[str], x_nd: np.ndarray, asked_ids: list[str], asked_md: np.ndarray) -> dict[str, Any]:
    """Realised means beside the embeddings that were asked for, by identity_id.

    Raises:
        InputError: identities that were not asked for.
    """
    row = {name: i for i, name in enumerate(asked_ids)}
    missing = [name for name in ids if name not in row]
    if missing:
        raise InputError(
            f"identities: {len(missing)} of the images' identities are not among them, first {missing[0]!r}"
        )
    if asked_md.shape[1] != x_nd.shape[1]:
        raise InputError(f"identities: {asked_md.shape[1]} dimensions, the recognizer has {x_nd.shape[1]}")
    at = np.array([row[name] for name in ids])
    cosine_n = np.einsum("nd,nd->n", x_nd.astype(np.float64), asked_md[at])
    nearest = sphere.nearest_cosine(x_nd, asked_md)[1]
    return {
        "max_cosine_asked": float(sphere.nearest_cosine(asked_md[at])[0].max()),
        "cosine_to_asked_mean": float(cosine_n.mean()),
        "cosine_to_asked_least": float(cosine_n.min()),
        "nearer_to_another": float((nearest != at).mean()),
    }


def _asked(uri: str, recognizer: weights.WeightsConfig) -> pa.Table:
    """The identities table, in the recognizer's space."""
    table = read_identities(uri, recognizer.embedding_dim)
    stated = metadata_of(table.schema)
    if "embedder_sha256" in stated:  # points packed without a gallery are of no recognizer
        check_embedder(stated, recognizer.architecture, recognizer.sha256, f"identities {uri}", "the judge is")
    return table


def _embed_config(config: RealisedConfig) -> EmbedConfig:
    return EmbedConfig(
        output=uris.join(config.output, "embedded"),
        images=config.verify_realised,
        weights=config.weights,
        images_per_identity=config.images_per_identity,
    )


def _digests(config: RealisedConfig, recognizer: weights.WeightsConfig) -> dict[str, str]:
    found = {
        "verify_realised": sources.open_source(config.verify_realised).digest,
        "weights": recognizer.sha256,
    }
    if config.identities is not None:
        found["identities"] = artifact.content_digest(config.identities)
    return found
