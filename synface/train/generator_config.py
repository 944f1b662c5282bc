"""Configuration of the verbs ``train autoencoder`` and ``train generator``."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from synface.settings import InputUri, Settings, StageConfig
from synface.train.config import TrainNumerics, WorkersHow, check_workers


class AverageOptimizer(Settings):
    """AdamW with warm-up and decay, and the exponential average of the weights that is kept in the end."""

    lr: float = Field(default=7e-4, gt=0, le=1)
    condition_lr: float = Field(
        default=3.0, gt=0, le=100, description="factor on lr of what carries the identity and m (generator)"
    )
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=1e-3, ge=0, le=1)
    clip_norm: float | None = Field(
        default=1.0, gt=0, description="largest norm of the whole gradient; none: unclipped"
    )
    schedule: Literal["constant", "cosine", "polynomial"] = "polynomial"
    power: float = Field(default=1.0, gt=0, le=10, description="polynomial")
    warmup_steps: int = Field(default=100, ge=0)
    ema: float = Field(default=0.997, ge=0, lt=1, description="decay of the weights' average per step; 0: none")

    @model_validator(mode="after")
    def _betas(self) -> "AverageOptimizer":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)}: both in [0, 1)")
        return self


class GeneratorNumerics(TrainNumerics):
    """What decides the last bits of a generator's training."""

    accumulation: int = Field(default=1, ge=1, le=4096, description="forward passes whose gradients make one step")


class GeneratorHow(WorkersHow):
    """What decides only the speed of a generator's training, what an interruption costs, and what is looked at."""

    checkpoint_every: int = Field(default=500, ge=1, description="steps")
    samples_every: int | None = Field(
        default=1000, ge=1, description="steps between looks at samples and the dial (generator); none: never"
    )
    samples_images: int = Field(default=8, ge=1, le=1024, description="inquiries in a look")
    inquiries: str | None = Field(
        default=None, description="identities table for the looks (one-shot, centres, packed); default: those held out"
    )


class StepsConfig(StageConfig):
    """What both trainings share: images in, so many steps, averaged weights out."""

    images: list[InputUri] = Field(min_length=1, description="images tables")
    image_size: int = Field(default=64, ge=16, le=1024, multiple_of=4, description="pixels; what the table holds")
    steps: int = Field(default=10_000, ge=1, le=100_000_000)
    global_batch_size: int = Field(default=32, ge=1, le=1 << 20, description="over all workers and accumulation")
    optimizer: AverageOptimizer = AverageOptimizer()
    seed: int = Field(default=0, ge=0, lt=2**62)
    store_dtype: Literal["float32", "float16"] = Field(default="float16", description="of the weights on disk")
    licence: str = Field(default="unstated", description="of the weights; stands in their config.json")
    training_data: str = Field(default="", description="one sentence for config.json; default: the tables' digests")
    numerics: GeneratorNumerics = GeneratorNumerics()
    how: GeneratorHow = GeneratorHow()

    @model_validator(mode="after")
    def _fits(self) -> "StepsConfig":
        parts = self.numerics.num_workers * self.numerics.accumulation
        if self.global_batch_size % parts:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of {self.numerics.num_workers} workers "
                f"x {self.numerics.accumulation} passes"
            )
        check_workers(self.numerics, self.how, self.images)
        return self


class TrainAutoencoderConfig(StepsConfig):
    """Images tables -> the autoencoder in whose latents a small generator works."""

    verb: ClassVar[str] = "train_autoencoder"

    autoencoder: str = Field(default="tiny", description="tiny")
    latent_noise: float = Field(
        default=0.03, ge=0, le=1, description="noise on the latents, share of their spread: neighbours decode alike"
    )
    latent_penalty: float = Field(default=1e-3, ge=0, le=1, description="on the latents' mean square")
    optimizer: AverageOptimizer = AverageOptimizer(lr=2e-3, schedule="cosine", warmup_steps=50)


class TrainGeneratorConfig(StepsConfig):
    """Images tables -> a generator (CemiFace, DCFace, IDiff-Face) for one recognizer's embeddings."""

    verb: ClassVar[str] = "train_generator"

    denoiser: str = Field(
        default="cemiface-tiny",
        description="cemiface cemiface-tiny cemiface-tiny-relation cemiface-tiny-adagn-paper cemiface-tiny-paper "
        "dcface-tiny idiffface-tiny idiffface",
    )
    architecture: dict[str, Any] = Field(
        default={}, description="fields of the denoiser's description that differ from the named one"
    )
    mode: Literal["paper", "relation", "hybrid"] | None = Field(
        default=None, description="what m means in training; default: the denoiser's own"
    )
    autoencoder: InputUri | None = Field(
        default=None,
        description="folder or URI of `train autoencoder`, or a generator (built-in name, folder or URI), whose own "
        "is taken; none: the denoiser works on pixels",
    )
    start: InputUri | None = Field(
        default=None,
        description="a generator to go on from (built-in name, folder or URI; it brings its autoencoder, and may "
        "learn poses), or the file of a released ADM network (denoiser cemiface): the FFHQ DDPM that DCFace starts "
        "from, or a DCFace checkpoint",
    )
    embedder: InputUri = Field(default="heads-fr-tiny", description="E_id: recognizer, built-in name, folder or URI")
    inquiry: Literal["image", "centre", "mixed"] = Field(
        default="image",
        description="condition on the inquiry image's embedding, on its identity's mean, or on either by chance",
    )
    held_out: int = Field(
        default=16, ge=0, description="identities kept from training, to measure the dial and the threshold on"
    )
    inquiry_far: float = Field(
        default=1e-4, gt=0, lt=1, description="two inquiries must be less alike than impostors at this FAR"
    )
    weight: float = Field(
        default=0.05, ge=0, le=100, description="lambda of L_SimMat (paper, hybrid) or of L_ID (DCFace)"
    )
    measure: Literal["cosine", "euclidean"] = "cosine"
    m_interval: float | None = Field(
        default=0.04, gt=0, le=1, description="grid of m (paper); none: continuous, warned"
    )
    m_range: tuple[float, float] = Field(default=(-1.0, 1.0), description="of the grid (paper)")
    same_share: float = Field(default=0.5, ge=0, le=1, description="pairs of one identity (relation, hybrid)")
    pair_range: tuple[float, float] = Field(default=(-0.25, 1.0), description="cosines that the other pairs cover")
    candidates: int = Field(default=1500, ge=1, le=1 << 20, description="images looked at for those pairs")
    drop: float = Field(default=0.1, ge=0, lt=1, description="share of dropped conditions, for guidance")
    ridge_penalty: float = Field(default=0.2, gt=0, le=1e6, description="of the closed-form mean, in images")

    @model_validator(mode="after")
    def _ranges(self) -> "TrainGeneratorConfig":
        for name in ("m_range", "pair_range"):
            low, high = getattr(self, name)
            if not -1 <= low <= high <= 1:
                raise ValueError(f"{name} [{low}, {high}]: inside [-1, 1], low before high")
        return self
