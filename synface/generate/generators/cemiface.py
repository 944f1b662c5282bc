"""``cemiface``: an identity's embedding and a similarity, drawn by a diffusion model (arXiv 2409.18876)."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from synface.core.dial import Dial
from synface.core.errors import InputError, SynfaceError
from synface.generate import asked, conditions
from synface.generate.config import GenerateConfig
from synface.generate.generators.inquiry_images import InquiryImages
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity, Item
from synface.generate.variation_config import SamplerOptions
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.models.sampling import SamplerSettings
from synface.settings import canonical_json
from synface.store.artifact import sha256_hex

VERSION = "1"
#: measured on one core at the tiny size, 10 steps, no guidance, rounded down (benchmarks/)
IMAGES_PER_MINUTE = 512
FIELD = "cemiface.weights"
#: where none are given
DEFAULT_WEIGHTS = "cemiface-tiny"


class CemifaceGenerator:
    """Samples ``G(E(x), m)``: noise by (seed, identity, sample), m or a target similarity by `config.variation`."""

    attributes = pa.struct(
        [
            ("inquiry", pa.bool_()),
            ("noise_sample", pa.int32()),
            ("similarity_expected", pa.float32()),
            ("cone_cosine", pa.float32()),
        ]
    )

    def __init__(self, config: GenerateConfig) -> None:
        torch.set_num_threads(config.numerics.threads_per_actor)
        stated = _stated(config)
        module, _ = generators.from_pretrained(_name(config))
        self._device = config.numerics.device
        module = module.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._denoiser, self._autoencoder = module.denoiser, module.autoencoder
        self._settings = sampler(config, stated)
        self._config = config
        self._dial = Dial.from_dict(stated.details["dial"]) if config.variation.similarity is not None else None
        options = config.cemiface
        self._inquiries = None if options.inquiry_images is None else InquiryImages(options.inquiry_images)

    @classmethod
    def describe(cls, config: GenerateConfig) -> Description:
        """Weights' digest and conventions; refuses sizes, factors and samplers that they do not fit."""
        stated = _stated(config)
        if stated.input_size != config.image_size:
            raise InputError(
                f"image_size = {config.image_size}: {_name(config)} makes images of {stated.input_size} pixels; set "
                "it to that, or train a generator for your size"
            )
        if config.identities is None:
            raise InputError("generator cemiface draws given people: give identities (made by `embed` or `pack`)")
        calibration = stated.details.get("dial")
        asked.check(config.variation, calibration, _name(config))
        settings = sampler(config, stated)
        if config.variation.similarity is not None and calibration is not None:  # asked.check refused a missing one
            _check_dial(calibration, settings)
        options = config.cemiface
        threshold = options.inquiries_below
        if threshold == "threshold":
            threshold = stated.details.get("inquiries", {}).get("threshold")
            if threshold is None:
                raise InputError(f"cemiface.inquiries_below: {_name(config)} states no threshold; give a cosine")
        if options.inquiry_images is not None:
            InquiryImages(options.inquiry_images)
        # what of the weights' statements decides pixels besides the tensors
        deciding = [stated.sha256, dataclasses.asdict(settings), calibration if config.variation.similarity else None]
        return Description(
            name="cemiface",
            weights_sha256=stated.sha256,
            version=VERSION,
            licence=stated.licence,
            sources={f"weights {stated.architecture} {stated.sha256[:12]}": stated.licence},
            source_type="trainedAlgorithmicMedia",
            images_per_minute=IMAGES_PER_MINUTE,
            needs_embedding=True,
            embedder=str(stated.details.get("embedder")),
            embedder_sha256=str(stated.details.get("embedder_sha256")),
            inquiries_below=threshold,
            digests={FIELD: sha256_hex(canonical_json(deciding).encode())},
        )

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        """None: it draws given people."""
        raise InputError("generator cemiface has no people of its own: give identities, not num_identities")

    def render(self, items: list[Item]) -> list[Sample | Failure]:
        """One picture per item, in one padded forward pass; copies of inquiries are read."""
        repeats = self._config.cemiface.inquiry_repeats
        out: list[Sample | Failure | None] = [self._copy(item) if item.sample < repeats else None for item in items]
        rows = [i for i, made in enumerate(out) if made is None]
        if rows:
            for i, made in zip(rows, self._draw([items[i] for i in rows]), strict=True):
                out[i] = made
        return [made for made in out if made is not None]

    def _draw(self, items: list[Item]) -> list[Sample]:
        config = self._config
        wanted = [self._ask(item) for item in items]
        keys: list[sampling.Key] = [
            (item.identity.identity_id, int(a.noise_n[0]), *item.key[3:])
            for item, a in zip(items, wanted, strict=True)
        ]
        own = np.stack([np.asarray(item.identity.embedding, np.float32) for item in items])
        nearest = [item.identity.nearest_cosine for item in items]
        embedding, cosine = asked.embeddings(config.variation, config.seed, own, nearest, keys)
        m = np.concatenate([a.m_n for a in wanted])
        latents = sampling.sample(self._denoiser, embedding, m, config.seed, keys, self._settings, device=self._device)
        images = sampling.to_images(latents, self._autoencoder, self._settings.micro_batch, self._device)
        return [
            self._sample(image, a, None if cosine is None else float(cosine[row]))
            for row, (image, a) in enumerate(zip(images, wanted, strict=True))
        ]

    def _ask(self, item: Item) -> asked.Asked:
        rows = conditions.subject_rows(item.sample + 1 - self._repeats, self._repeats)
        return asked.ask(
            self._config.variation, self._dial, self._config.seed, item.identity.identity_id, rows.draw_n[-1:]
        )

    @property
    def _repeats(self) -> int:
        return self._config.cemiface.inquiry_repeats

    @staticmethod
    def _sample(image: np.ndarray, wanted: asked.Asked, cosine: float | None) -> Sample:
        target, expected = float(wanted.target_n[0]), float(wanted.expected_n[0])
        return Sample(
            image,
            {
                "inquiry": False,
                "noise_sample": int(wanted.noise_n[0]),
                "similarity_expected": None if np.isnan(expected) else expected,
                "cone_cosine": cosine,
            },
            m=float(wanted.m_n[0]),
            similarity_target=None if np.isnan(target) else target,
        )

    def _copy(self, item: Item) -> Sample | Failure:
        assert self._inquiries is not None
        try:
            image = self._inquiries.picture(item.identity.identity_id)
        except SynfaceError as error:
            return Failure(str(error))
        facts = {"inquiry": True, "noise_sample": None, "similarity_expected": None, "cone_cosine": None}
        return Sample(image, facts, copied=True)


def _name(config: GenerateConfig) -> str:
    return config.cemiface.weights or DEFAULT_WEIGHTS


def _stated(config: GenerateConfig) -> weights.WeightsConfig:
    return weights.read_config(_name(config), generators.GENERATOR_KIND)


def own_sampler(stated: weights.WeightsConfig) -> dict[str, Any]:
    """The weights' own sampler settings, over the library's."""
    plain = {k: v for k, v in dataclasses.asdict(SamplerSettings()).items() if k != "micro_batch"}
    own = {**plain, **stated.details.get("sampler", {})}
    return {**own, "guidance_interval": tuple(own["guidance_interval"])}


def resolve(options: SamplerOptions, stated: weights.WeightsConfig, micro_batch: int) -> SamplerSettings:
    """Given options over the weights' own ones.

    Raises:
        InputError: options that exclude each other, or steps that the solver cannot take with this network.
    """
    given = {k: v for k, v in options.model_dump().items() if v is not None}
    settings = SamplerSettings(**{**own_sampler(stated), **given}, micro_batch=micro_batch)
    sampling.build_scheduler(generators.from_dict(stated.details["denoiser"]), settings)
    return settings


def sampler(config: GenerateConfig, stated: weights.WeightsConfig) -> SamplerSettings:
    """As `resolve`, of a run."""
    return resolve(config.cemiface.sampler, stated, config.numerics.micro_batch)


def _check_dial(calibration: dict[str, Any], settings: SamplerSettings) -> None:
    """A dial holds for the sampler that it was measured with."""
    measured = calibration.get("sampler", {})
    used = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items()}
    other = [f"{k}: {v!r} then, {used[k]!r} now" for k, v in measured.items() if used.get(k) != v]
    if other:
        raise InputError(
            f"variation.similarity: the dial was calibrated with another sampler ({'; '.join(other)}); leave "
            "cemiface.sampler out, or calibrate with yours"
        )
