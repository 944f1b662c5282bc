"""Parametric heads: a deterministic, DigiFace-style renderer of synthetic people (docs/heads.md).

A picture is a pure function of (domain, identity seed, variation key). Change anything that changes pixels,
and RENDERER_VERSION must move: pinned benchmarks name it.
"""

from synface.core.rng import KeyPart
from synface.models.heads.assets import asset_digest
from synface.models.heads.domains import DOMAINS, SPLITS, STRESSES, Domain
from synface.models.heads.identity import (
    Identity,
    aged,
    identity_attributes,
    identity_distance,
    sample_identity,
)
from synface.models.heads.renderer import HeadRenderer, Render
from synface.models.heads.variation import Variation, sample_variation

RENDERER_VERSION: int = 1


def render_image(domain: str, seed: int, sample_key: KeyPart, size: int = 112, stress: str = "any") -> Render:
    """One picture without keeping a renderer: person `seed`, picture `sample_key` of that person."""
    identity = sample_identity(domain, seed)
    return HeadRenderer(size).render(identity, sample_variation(domain, seed, sample_key, stress=stress))


__all__ = [
    "DOMAINS",
    "RENDERER_VERSION",
    "SPLITS",
    "STRESSES",
    "Domain",
    "HeadRenderer",
    "Identity",
    "Render",
    "Variation",
    "aged",
    "asset_digest",
    "identity_attributes",
    "identity_distance",
    "render_image",
    "sample_identity",
    "sample_variation",
]
