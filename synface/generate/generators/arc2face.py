"""``arc2face``: an ArcFace embedding drawn by Stable Diffusion 1.5 (arXiv 2403.11641), and cut to the ArcFace crop."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from synface.core import plugins
from synface.core.crops import ALIGNMENT
from synface.core.errors import InputError
from synface.generate import asked
from synface.generate.config import GenerateConfig
from synface.generate.generators.style_images import CONTROL_STREAM, DrawnImages, check_size
from synface.generate.generators.types import Description, Failure, Sample
from synface.generate.plan import Identity, Item
from synface.models import sampling
from synface.models.arc2face import files
from synface.models.arc2face.model import EMBEDDING_DIM, Arc2Face, Arc2faceSettings
from synface.ops.runs import say
from synface.settings import canonical_json
from synface.store import images
from synface.store.artifact import sha256_hex

VERSION = f"1, alignment {ALIGNMENT}"
#: HyperFace's 640,000 pictures took 174 GPU hours (RTX 3090, all else unknown); synface has not run the real weights
IMAGES_PER_MINUTE = 60
#: of the attributes where there is a ControlNet: row of `control_images` that the sample took
CONTROL = pa.field("control", pa.int64())


class Arc2faceGenerator:
    """Draws the identity's embedding, perturbed as `config.variation` says; noise by (seed, identity, sample)."""

    attributes: pa.StructType = pa.struct(
        [
            ("embedding_cosine", pa.float32()),  # of the drawn embedding to the identity's own; null: the same
            ("landmarks", pa.bool_()),  # cropped by detected landmarks, not where FFHQ's alignment puts the face
        ]
    )

    def __init__(self, config: GenerateConfig) -> None:
        torch.set_num_threads(config.numerics.threads_per_actor)
        options = config.arc2face
        self._config = config
        self._model = Arc2Face(find(config), settings(config), config.numerics.device, options.compile)
        self._detect = plugins.load("arc2face.landmarks", options.landmarks) if options.landmarks else None
        self._controls = None
        if options.control_images is not None:
            self._controls = DrawnImages(
                options.control_images, options.controls, self._model.image_size, "arc2face.control_images",
                CONTROL_STREAM,
            )  # fmt: skip
            self.attributes = pa.struct([*self.attributes, CONTROL])

    @classmethod
    def describe(cls, config: GenerateConfig) -> Description:
        """Files' digests and licences; refuses what the weights or their embeddings do not fit."""
        files.check_installed()
        if config.identities is None:
            raise InputError("generator arc2face draws given people: give identities (made by `embed` or `pack`)")
        variation = config.variation
        if variation.m is not None or variation.similarity is not None:
            raise InputError(
                "variation: arc2face has no similarity factor; its samples differ by noise and, where asked, by "
                "variation.beta (HyperFace) or variation.cone"
            )
        if variation.pose is not None:
            raise InputError(
                "variation.pose: arc2face takes poses as pictures: arc2face.controlnet and arc2face.control_images"
            )
        options = config.arc2face
        if options.landmarks:
            plugins.load("arc2face.landmarks", options.landmarks)
        sampler, found = settings(config), find(config)
        if options.control_images is not None:
            check_size(options.control_images, files.image_size(found), "arc2face.control_images")
        embedder = _embedder(options.embedder, found["weights"])
        return Description(
            name="arc2face",
            weights_sha256=sha256_hex(canonical_json({k: f.sha256 for k, f in found.items()}).encode()),
            version=VERSION,
            licence=f"other: {files.RESEARCH} only, by the data that the weights were trained on",
            sources={f"{f.part.title} {f.sha256[:12]}": f.part.licence for f in found.values()},
            source_type="trainedAlgorithmicMedia",
            images_per_minute=IMAGES_PER_MINUTE,
            needs_embedding=True,
            embedder="ArcFace of Arc2Face" if embedder else "",
            embedder_sha256=embedder,
            embedding_dim=EMBEDDING_DIM,
            teraflop_per_image=sampler.teraflop,
            network_gb=sampler.network_gb,
            digests={f"arc2face.{k}": f.sha256 for k, f in found.items()},
        )

    @classmethod
    def own_identities(cls, config: GenerateConfig, labels: range) -> list[Identity]:
        """None: it draws given people."""
        raise InputError("generator arc2face has no people of its own: give identities, not num_identities")

    def render(self, items: list[Item]) -> list[Sample | Failure]:
        """One picture per item, all in padded micro-batches."""
        config = self._config
        keys: list[sampling.Key] = [item.key[1:] for item in items]
        own = np.stack([np.asarray(item.identity.embedding, np.float32) for item in items])
        nearest = [item.identity.nearest_cosine for item in items]
        embedding, cosine = asked.embeddings(config.variation, config.seed, own, nearest, keys)
        shown, facts = None, [{} for _ in keys]
        if self._controls is not None:
            number_n = self._controls.draw(config.seed, keys)
            shown = np.stack([self._controls.picture(int(number)) for number in number_n])
            facts = [{CONTROL.name: int(number)} for number in number_n]
        pictures = self._model.sample(embedding, config.seed, keys, shown)
        return [
            self._sample(picture, {"embedding_cosine": None if cosine is None else float(cosine[row]), **facts[row]})
            for row, picture in enumerate(pictures)
        ]

    def _sample(self, picture: np.ndarray, facts: dict[str, Any]) -> Sample | Failure:
        points = None
        if self._detect is not None:
            points = self._detect(picture)
            if points is None:
                return Failure("arc2face.landmarks found no face in the picture")
        crop = images.face_crop(picture, self._config.image_size, points)
        return Sample(crop, {**facts, "landmarks": points is not None})


def find(config: GenerateConfig) -> dict[str, files.Found]:
    """The files that a run reads; InputError with a list where some are missing."""
    options: Any = config.arc2face
    return files.find({part.option: getattr(options, part.option) for part in files.PARTS})


def settings(config: GenerateConfig) -> Arc2faceSettings:
    """The published settings, and what the configuration says over them."""
    options = config.arc2face
    return Arc2faceSettings.of(
        options.lcm_lora is not None,
        options.steps,
        options.guidance,
        dtype=options.dtype,
        micro_batch=config.numerics.micro_batch,
        decode_batch=options.decode_batch,
        control_scale=None if options.controlnet is None else options.control_scale,
    )


def _embedder(asked_for: str, found: files.Found) -> str:
    """sha256 of the recognizer whose embeddings are drawn; empty: any."""
    if asked_for == "any":
        say("generate: arc2face.embedder any: not checked; identities of another recognizer become other people")
        return ""
    if asked_for != "own":
        return asked_for
    if files.EMBEDDER not in found.names:
        raise InputError(
            f"arc2face.embedder own: no {files.EMBEDDER} in {found.folder} to know its embeddings by; put it there "
            f"(https://huggingface.co/{found.part.hub}), or give the sha256 of the recognizer that embedded the "
            "identities, or `any` to leave it unchecked"
        )
    return files.file_digest(found.folder / files.EMBEDDER)
