"""``heads``: parametric rendered heads. An identity is (domain, seed); nothing is learned."""

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from synface.core.errors import InputError, unknown_name
from synface.generate.config import GenerateConfig
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity, Item
from synface.models import heads

#: people that stay built: an identity's samples come one after another
KEPT_IDENTITIES = 16
#: measured on one core at 112 pixels with shadows, rounded down (benchmarks/)
IMAGES_PER_MINUTE = 2048
_ARROW = {bool: pa.bool_(), int: pa.int32(), float: pa.float32(), str: pa.string()}


class HeadsGenerator:
    """Renders ``sample_identity(domain, seed)`` with ``sample_variation(domain, *key)``.

    The domain is `config.domain`, else the identity's own source.
    """

    attributes: pa.StructType

    def __init__(self, config: GenerateConfig) -> None:
        options = config.heads
        self._domain, self._stress = config.domain, options.stress
        self._renderer = heads.HeadRenderer(config.image_size, options.supersampling, options.shadows)
        self._identity = functools.lru_cache(KEPT_IDENTITIES)(heads.sample_identity)
        probe = self._attributes(*self._draw(next(iter(heads.DOMAINS)), 0, ("probe",)))
        self.attributes = pa.struct([pa.field(name, _arrow_type(name, value)) for name, value in probe.items()])

    @classmethod
    def describe(cls, config: GenerateConfig) -> Description:
        """The renderer's version and the digest of its asset pack stand for weights."""
        if config.domain is not None and config.domain not in heads.DOMAINS:
            raise unknown_name("domain of heads", config.domain, heads.DOMAINS)
        if config.num_identities is not None and config.domain is None:
            raise InputError(f"num_identities needs a domain; known: {', '.join(heads.DOMAINS)}")
        return Description(
            name="heads",
            weights_sha256=heads.asset_digest(),
            version=str(heads.RENDERER_VERSION),
            licence="CC0-1.0",
            sources={"MakeHuman/MPFB2 head mesh and targets": "CC0-1.0", "face expression units": "CC0-1.0"},
            source_type="algorithmicMedia",
            images_per_minute=IMAGES_PER_MINUTE,
            needs_embedding=False,
        )

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        """Seeds ``first_seed, first_seed + 1, ...`` of the split's range."""
        first, stop = heads.SPLITS[config.heads.split]
        first += config.first_seed
        if config.domain is None or first + (config.num_identities or 0) > stop:
            raise InputError(
                f"num_identities {config.num_identities} from first_seed {config.first_seed}: beyond the split "
                f"{config.heads.split!r} of {stop - heads.SPLITS[config.heads.split][0]} identities"
            )
        return [
            Identity(label, f"{config.domain}-{first + label:010d}", config.domain, first + label) for label in labels
        ]

    def render(self, items: list[Item]) -> list[Sample | Failure]:
        """One picture per item; an item that cannot be drawn costs only itself."""
        return [self._render_one(item) for item in items]

    def _render_one(self, item: Item) -> Sample | Failure:
        domain = self._domain or item.identity.source
        try:
            identity, render = self._draw(domain, item.identity.seed, item.key)
        except InputError as error:
            return Failure(str(error))
        return Sample(render.image, self._attributes(identity, render))

    def _draw(self, domain: str, seed: int, key: tuple[Any, ...]) -> tuple[heads.Identity, heads.Render]:
        identity = self._identity(domain, seed)
        variation = heads.sample_variation(domain, *key, stress=self._stress)
        return identity, self._renderer.render(identity, variation)

    @staticmethod
    def _attributes(identity: heads.Identity, render: heads.Render) -> dict[str, Any]:
        return {
            **render.attributes,
            "identity_seed": identity.seed,
            "landmarks": render.landmarks.astype(np.float32).ravel().tolist(),
        }


def _arrow_type(name: str, value: Any) -> pa.DataType:
    if name == "identity_seed":
        return pa.int64()
    if name == "landmarks":  # five points x, y in pixels, ArcFace order
        return pa.list_(pa.float32(), len(value))
    return _ARROW[type(value)]
