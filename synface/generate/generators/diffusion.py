"""What the generators that sample a trained denoiser share: weights, sampler, whom they draw, one forward pass."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from synface.core.crops import ALIGNMENT
from synface.core.dial import Dial
from synface.core.errors import InputError, SynfaceError
from synface.generate import asked, conditions
from synface.generate.config import GenerateConfig
from synface.generate.generators.inquiry_images import InquiryImages
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity, Item
from synface.generate.variation_config import DiffusionOptions, SamplerOptions
from synface.models import sampling, weights
from synface.models.denoisers import generator as generators
from synface.models.sampling import SamplerSettings
from synface.settings import canonical_json
from synface.store.artifact import sha256_hex
from synface.store.images import face_crop

VERSION = "1"
#: measured for cemiface-tiny on one core, 10 steps, no guidance, rounded down (benchmarks/); not for the others
IMAGES_PER_MINUTE = 512


class DiffusionGenerator:
    """Samples a denoiser for given people: noise by (seed, identity, sample). Its subclasses say what is asked.

    Attributes:
        name: of the generator, and of its section of the configuration.
        modes: of the denoisers that it draws with (`DenoiserConfig.mode`).
        built_in: name of the weights that it takes where none are given.
    """

    name: ClassVar[str]
    modes: ClassVar[tuple[str, ...]]
    built_in: ClassVar[str | None] = None
    attributes: pa.StructType

    def __init__(self, config: GenerateConfig) -> None:
        torch.set_num_threads(config.numerics.threads_per_actor)
        options, stated = self.options(config), self.stated(config)
        module, _ = generators.from_pretrained(self.place(config))
        self._device, self._dtype = config.numerics.device, getattr(torch, config.numerics.dtype)
        module = module.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._denoiser, self._autoencoder = module.denoiser, module.autoencoder
        self._settings = resolve(options.sampler, stated, config.numerics.micro_batch)
        self._config = config
        self._dial = Dial.from_dict(stated.details["dial"]) if config.variation.similarity is not None else None
        self._inquiries = None if options.inquiry_images is None else InquiryImages(options.inquiry_images)
        self._repeats = options.inquiry_repeats
        self._framing = framing_of(stated)
        self._pose = module.denoiser.config.pose if config.variation.pose is not None else ()
        if self._pose:
            self.attributes = pa.struct([*self.attributes, *[pa.field(name, pa.float32()) for name in self._pose]])

    @classmethod
    def options(cls, config: GenerateConfig) -> DiffusionOptions:
        """This generator's section."""
        return getattr(config, cls.name)

    @classmethod
    def place(cls, config: GenerateConfig) -> str:
        """Folder or URI of the weights. InputError where none is given."""
        given = cls.options(config).weights or cls.built_in
        if given is None:
            raise InputError(
                f"generator {cls.name}: give {cls.name}.weights, made by `synface train generator` or `calibrate`"
            )
        return given

    @classmethod
    def stated(cls, config: GenerateConfig) -> weights.WeightsConfig:
        """What stands beside the weights. InputError where they are of another generator."""
        found = weights.read_config(cls.place(config), generators.GENERATOR_KIND)
        mode = generators.from_dict(found.details["denoiser"]).mode
        if mode not in cls.modes:
            raise InputError(
                f"generator {cls.name}: {cls.place(config)} were trained in mode {mode}, it draws with "
                f"{', '.join(cls.modes)}; use the generator that they were trained for"
            )
        return found

    @classmethod
    def check(cls, config: GenerateConfig, stated: weights.WeightsConfig, settings: SamplerSettings) -> Any:
        """Refuse what these weights cannot be asked; whatever besides tensors and sampler decides pixels, or None."""
        raise NotImplementedError

    @classmethod
    def describe(cls, config: GenerateConfig) -> Description:
        """Weights' digest and conventions; refuses sizes, factors and samplers that they do not fit."""
        stated, options = cls.stated(config), cls.options(config)
        place = cls.place(config)
        framing = framing_of(stated)
        if stated.input_size != config.image_size and (framing is None or stated.input_size < config.image_size):
            raise InputError(
                f"image_size = {config.image_size}: {place} makes images of {stated.input_size} pixels; set "
                "it to that, or train a generator for your size"
                + ("" if framing is None else "; smaller ones are cropped as recognizers want them")
            )
        settings = resolve(options.sampler, stated, config.numerics.micro_batch)
        asks_also = cls.check(config, stated, settings)
        asked.check_pose(config.variation, generators.from_dict(stated.details["denoiser"]).pose, place)
        if options.negative is not None and settings.guidance == 1:
            raise InputError(
                f"{cls.name}.negative = {options.negative!r}: works through guidance; set {cls.name}.sampler.guidance "
                "above 1, e.g. 1.5"
            )
        threshold = options.inquiries_below
        if threshold == "threshold":
            threshold = stated.details.get("inquiries", {}).get("threshold")
            if threshold is None:
                raise InputError(f"{cls.name}.inquiries_below: {place} states no threshold; give a cosine")
        if options.inquiry_images is not None:
            InquiryImages(options.inquiry_images)
        # what of the weights' statements decides pixels besides the tensors
        deciding = [
            stated.sha256,
            dataclasses.asdict(settings),
            asks_also,
            *([] if framing is None else [framing, ALIGNMENT]),
        ]
        return Description(
            name=cls.name,
            weights_sha256=stated.sha256,
            version=VERSION,
            licence=stated.licence,
            sources={f"weights {stated.architecture} {stated.sha256[:12]}": stated.licence},
            source_type="trainedAlgorithmicMedia",
            images_per_minute=IMAGES_PER_MINUTE,
            needs_embedding=drawn_by_embedding(config),
            embedder=str(stated.details.get("embedder")),
            embedder_sha256=str(stated.details.get("embedder_sha256")),
            embedding_dim=stated.embedding_dim,
            inquiries_below=threshold,
            negative=options.negative,
            digests={f"{cls.name}.weights": sha256_hex(canonical_json(deciding).encode())},
        )

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        """None: it draws given people."""
        raise InputError(f"generator {cls.name} has no people of its own: give identities, not num_identities")

    def render(self, items: list[Item]) -> list[Sample | Failure]:
        """One picture per item, in one padded forward pass; copies of inquiries are read."""
        out: list[Sample | Failure | None] = [
            self._copy(item) if item.sample < self._repeats else None for item in items
        ]
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
        embedding, cosine = None, None
        if drawn_by_embedding(config):
            own = np.stack([np.asarray(item.identity.embedding, np.float32) for item in items])
            nearest = [item.identity.nearest_cosine for item in items]
            embedding, cosine = asked.embeddings(config.variation, config.seed, own, nearest, keys)
        m = np.concatenate([a.m_n for a in wanted])
        negative = None
        if self.options(config).negative is not None:
            negative = np.stack([np.asarray(item.identity.negative, np.float32) for item in items])
        style, facts = self._style(keys)
        pose = None
        if self._pose:
            pose = np.concatenate([self._asked_pose(item) for item in items])
            facts = [
                fact | dict(zip(self._pose, row.tolist(), strict=True)) for fact, row in zip(facts, pose, strict=True)
            ]
        with torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32):
            latents = sampling.sample(
                self._denoiser, embedding, m, config.seed, keys, self._settings, device=self._device,
                negative_nd=negative, style_nchw=style, pose_na=pose,
            )  # fmt: skip
            images = sampling.to_images(latents, self._autoencoder, self._settings.micro_batch, self._device)
        if self._framing is not None:
            images = np.stack([face_crop(image, config.image_size) for image in images])
        return [
            self._sample(image, a, {**fact, "cone_cosine": None if cosine is None else float(cosine[row])})
            for row, (image, a, fact) in enumerate(zip(images, wanted, facts, strict=True))
        ]

    def _draw_number(self, item: Item) -> np.ndarray:
        """The item's number among the generated samples of its identity, int64 [1]."""
        return conditions.subject_rows(item.sample + 1 - self._repeats, self._repeats).draw_n[-1:]

    def _ask(self, item: Item) -> asked.Asked:
        """What one sample is asked to be; without an m, itself."""
        return asked.plain(self._draw_number(item))

    def _asked_pose(self, item: Item) -> np.ndarray:
        config = self._config
        return asked.pose(
            config.variation, self._pose, config.seed, item.identity.identity_id, self._draw_number(item)
        )

    def _style(self, keys: list[sampling.Key]) -> tuple[np.ndarray | None, list[dict[str, Any]]]:
        """Whose style some samples take, where the network knows one, and what is to be said of it, one per key."""
        return None, [{} for _ in keys]

    def _sample(self, image: np.ndarray, wanted: asked.Asked, facts: dict[str, Any]) -> Sample:
        """A picture and what is known of it; `facts`: the cone's cosine (or None), of `_style`, the asked pose."""
        return Sample(image, {"inquiry": False, **facts})

    def _copy(self, item: Item) -> Sample | Failure:
        assert self._inquiries is not None
        try:
            image = self._inquiries.picture(item.identity.identity_id)
        except SynfaceError as error:
            return Failure(str(error))
        return Sample(image, dict.fromkeys(self.attributes.names) | {"inquiry": True}, copied=True)


def drawn_by_embedding(config: GenerateConfig) -> bool:
    """Whether the run's identities have embeddings: a table's, or points of the sphere."""
    return config.identities is not None or config.contexts.uniform


def framing_of(stated: weights.WeightsConfig) -> str | None:
    """How faces stand in what these weights draw, where it is not the ArcFace crop: ``ffhq``; then they are cropped.

    Raises:
        InputError: a framing that is not known.
    """
    framing = stated.details.get("framing")
    if framing not in (None, "ffhq"):
        raise InputError(f"weights {stated.architecture}: framing {framing!r} of their details; known: ffhq")
    return framing


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
