"""Configuration of the verb ``train recognizer``."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from synface.settings import InputUri, MeasuredRate, Numerics, PlacedHow, Settings, StageConfig

Range = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


class Margin(Settings):
    """The loss: which margin on the target's angle, and how large (``train.margins``)."""

    name: Literal["softmax", "cosface", "arcface", "combined", "adaface"] = "cosface"
    s: float = Field(default=64.0, gt=0, le=1000, description="scale of the logits")
    m: float = Field(default=0.35, ge=0, le=1.5, description="margin of cosface, arcface and adaface")
    m1: float = Field(default=1.0, gt=0, le=4, description="combined: cos(m1 t + m2) - m3")
    m2: float = Field(default=0.3, ge=0, le=1.5)
    m3: float = Field(default=0.2, ge=0, le=1.5)
    h: float = Field(default=0.333, ge=0, le=10, description="adaface: how far the norm moves the margin")
    t_alpha: float = Field(default=0.01, gt=0, le=1, description="adaface: weight of a batch in the norms' average")
    straight_through: bool = Field(default=False, description="insightface's gradient instead of the formula's")
    warmup_epochs: float = Field(default=0.0, ge=0, description="the margin rises linearly from 0 over these")


class Source(Settings):
    """Images in a foreign format, trained on where they stand; hashed by their files' names and sizes."""

    uri: InputUri = Field(description="folder, .rec file or folder with one, .tar or folder of them")
    format: Literal["folder", "recordio", "webdataset"]


class SimilarityGroup(Settings):
    """One of several equal parts of each identity's images, by cosine to the identity's centre (``train.groups``)."""

    identities: InputUri = Field(description="`embed --similarities true` of the same images table")
    groups: int = Field(default=5, ge=2, le=100)
    group: int = Field(default=0, ge=0, description="0: the most similar images")

    @model_validator(mode="after")
    def _one_of_them(self) -> "SimilarityGroup":
        if self.group >= self.groups:
            raise ValueError(f"group {self.group} of {self.groups}: 0 to {self.groups - 1}")
        return self


class Head(Settings):
    """How the classes of the softmax are held (``train.partial_fc``)."""

    sharded: bool = Field(default=False, description="PartialFC: each worker holds its part of the class centres")
    sample_rate: float = Field(
        default=1.0, gt=0, le=1, description="share of the classes in a step's softmax; below 1 needs sharded"
    )

    @model_validator(mode="after")
    def _sampling(self) -> "Head":
        if self.sample_rate < 1 and not self.sharded:
            raise ValueError(f"sample_rate {self.sample_rate} needs head.sharded")
        return self


class Optimizer(Settings):
    """Optimizer and learning-rate schedule (``train.schedules``)."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=10)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd")
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    head_weight_decay: float | None = Field(
        default=None, ge=0, le=1, description="of the class centres; default: the same"
    )
    clip_norm: float | None = Field(
        default=5.0, gt=0, description="largest norm of the whole gradient; none: unclipped"
    )
    schedule: Literal["constant", "cosine", "polynomial", "step"] = "polynomial"
    warmup_epochs: float = Field(default=1.0, ge=0)
    power: float = Field(default=2.0, gt=0, le=10, description="polynomial")
    milestones: list[float] = Field(default=[], description="step: epochs at which lr is multiplied by gamma")
    gamma: float = Field(default=0.1, gt=0, le=1, description="step")

    @model_validator(mode="after")
    def _milestones(self) -> "Optimizer":
        if self.schedule == "step" and not self.milestones:
            raise ValueError("schedule step needs milestones, e.g. [26, 34]")
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"milestones {self.milestones} must rise")
        return self


class Augmentation(Settings):
    """Random changes of each training image (``train.augment``); probabilities, ranges and largest shifts."""

    flip: float = Field(default=0.5, ge=0, le=1, description="probability of the mirror image")
    crop_scale: Range = Field(
        default=(0.9, 1.0), description="area of the random crop that is resized to the full size"
    )
    shift: float = Field(default=0.0, ge=0, le=0.5, description="further shift, share of the side")
    rotation: float = Field(default=0.0, ge=0, le=180, description="degrees to either side")
    shear: float = Field(default=0.0, ge=0, le=45, description="degrees to either side, along each axis")
    stretch: float = Field(
        default=0.0, ge=0, le=1, description="largest change of the width, the height changing inversely"
    )
    brightness: float = Field(default=0.1, ge=0, le=1)
    contrast: float = Field(default=0.1, ge=0, le=1)
    saturation: float = Field(default=0.1, ge=0, le=1)
    hue: float = Field(default=0.1, ge=0, le=0.5, description="share of a full turn to either side")
    grey: float = Field(default=0.0, ge=0, le=1, description="probability of no colour")
    erasing: float = Field(default=0.5, ge=0, le=1, description="probability of an erased box")
    erasing_area: Range = (0.02, 0.1)
    low_resolution: float = Field(default=0.0, ge=0, le=1, description="probability of a loss of resolution")
    resolution: Range = Field(default=(0.25, 0.9), description="share of the side that is left then")
    noise: float = Field(default=0.0, ge=0, le=1, description="largest standard deviation, share of the grey range")

    @model_validator(mode="after")
    def _ranges(self) -> "Augmentation":
        for name in ("crop_scale", "erasing_area", "resolution"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: [{low}, {high}] must rise")
        if self.crop_scale[0] < 0.01:
            raise ValueError(f"crop_scale: {self.crop_scale[0]} leaves nothing of the image; at least 0.01")
        return self


class TrainNumerics(Numerics):
    """What decides the last bits of a training: world size, threads, device, number format."""

    num_workers: int = Field(default=1, ge=1, le=4096, description="data-parallel workers (the world size)")
    threads_per_worker: int = Field(default=2, ge=1, le=256)
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="of autocast")
    channels_last: bool = True
    compile: bool = Field(default=False, description="torch.compile the backbone")

    @property
    def worlds(self) -> range:
        """Numbers of workers that the group may have."""
        return range(self.num_workers, self.num_workers + 1)


class RecognizerNumerics(TrainNumerics):
    """What decides the last bits of a recognizer's training."""

    min_workers: int | None = Field(
        default=None,
        ge=1,
        description="elastic: as many workers as there is room for, from these to num_workers; default: all of them",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="parts of each worker's batch, one after the other; their gradients add up",
    )

    @property
    def worlds(self) -> range:
        """Numbers of workers that the group may have: more than one where the training is elastic."""
        return range(self.min_workers or self.num_workers, self.num_workers + 1)

    @model_validator(mode="after")
    def _elastic(self) -> "RecognizerNumerics":
        if self.min_workers is not None and self.min_workers >= self.num_workers:
            raise ValueError(
                f"min_workers {self.min_workers} with num_workers {self.num_workers}: fewer than num_workers, or none "
                "for a fixed number"
            )
        return self


class WorkersHow(PlacedHow):
    """Workers, memory and logs of any training; they decide only its speed and what an interruption costs."""

    in_process: bool = Field(
        default=False, description="the one worker is this process: starts at once, but is not started again if lost"
    )
    max_failures: int = Field(default=3, ge=-1, description="lost worker groups that are started again; -1: always")
    cpus_per_worker: float | None = Field(
        default=None, gt=0, description="default: threads per worker, as far as there are"
    )
    gpus_per_worker: float = Field(default=1.0, gt=0, description="with device cuda")
    memory_gb: float = Field(
        default=4.0, gt=0, description="per worker, for images: decoded, else encoded, else refused"
    )
    decode_threads: int = Field(default=2, ge=1, le=64)
    prefetch: int = Field(default=2, ge=0, le=64, description="batches made ahead of the training thread; 0: none")
    log_every: int = Field(default=50, ge=1, description="steps between points of the curves")
    rate: MeasuredRate = None


class TrainHow(WorkersHow):
    """What decides only the speed of a recognizer's training, and what an interruption costs."""

    checkpoint_every: int | None = Field(default=None, ge=1, description="steps; default: every epoch")
    checkpoint_seconds: float = Field(
        default=60.0, ge=0, description="an epoch's end writes a checkpoint only if the last one is this old"
    )
    resize_seconds: float = Field(
        default=60.0, gt=0, description="elastic: time between looks for room for more workers"
    )
    trackers: list[Literal["mlflow", "wandb"]] = Field(
        default=[], description="besides TensorBoard; they read their usual environment variables on the workers"
    )


def check_workers(numerics: TrainNumerics, how: WorkersHow, images: list[str]) -> None:
    """ValueError for what no training can do: one process as several workers, float16 on a CPU, a table twice."""
    if how.labels and len(numerics.worlds) > 1:
        raise ValueError(
            "numerics.min_workers with how.labels: Ray 2.60 counts every node for an elastic group, whatever its "
            "labels, and would wait for places that the labels forbid; leave one of them out"
        )
    if how.in_process and numerics.num_workers > 1:
        raise ValueError(f"how.in_process is for one worker, numerics.num_workers asks {numerics.num_workers}")
    if numerics.dtype == "float16" and numerics.device == "cpu":
        raise ValueError("dtype float16 needs device cuda; on the CPU use bfloat16 or float32")
    if len(set(images)) != len(images):
        raise ValueError("images: the same table stands twice")


class TrainRecognizerConfig(StageConfig):
    """Images tables, folders, RecordIO or WebDataset -> a face-recognition model."""

    verb: ClassVar[str] = "train_recognizer"
    algorithm_version: ClassVar[int] = 2  # 2: augmentation in single precision

    images: list[InputUri] = Field(default=[], description="images tables; their identities are the classes")
    sources: list[Source] = Field(default=[], description="further images, in foreign formats: {uri, format}")
    merge_identities: bool = Field(
        default=False,
        description="equal identity_id in two tables is one class; otherwise each table has its own classes",
    )
    repeat: list[Annotated[float, Field(gt=0, le=1000)]] = Field(
        default=[], description="how often an epoch takes each table's (then each source's) images; default: once each"
    )
    similarity_group: SimilarityGroup | None = Field(
        default=None, description="train on this part of each identity's images only"
    )
    backbone: str = Field(
        default="r18",
        description="r18 ... r200, ir_18 ... ir_101, ir_se50, vit_t ... vit_l, mobilefacenet, tiny, or "
        "package.module:attribute",
    )
    image_size: int = Field(default=112, ge=32, le=1024, multiple_of=16, description="pixels; what the table holds")
    embedding_dim: int | None = Field(default=None, ge=2, le=8192, description="default: 256 for tiny, else 512")
    margin: Margin = Margin()
    head: Head = Head()
    optimizer: Optimizer = Optimizer()
    epochs: int = Field(default=40, ge=1, le=100_000)
    global_batch_size: int = Field(default=128, ge=2, le=1 << 20, description="over all workers")
    augmentation: Augmentation = Augmentation()
    shuffle_shards: int | None = Field(
        default=None,
        ge=1,
        description="shuffle within windows of so many shards (streams); default: the whole data set",
    )
    seed: int = Field(default=0, ge=0, lt=2**62)
    continue_from: InputUri | None = Field(
        default=None,
        description="output of an unfinished training, the same but for numerics: go on from its newest checkpoint, "
        "e.g. on another number of workers",
    )
    store_dtype: Literal["float32", "float16"] = Field(default="float32", description="of the weights on disk")
    licence: str = Field(default="unstated", description="of the weights; stands in their config.json")
    training_data: str = Field(default="", description="one sentence for config.json; default: the tables' digests")
    numerics: RecognizerNumerics = RecognizerNumerics()
    how: TrainHow = TrainHow()

    @property
    def dim(self) -> int:
        """Embedding size."""
        return self.embedding_dim or (256 if self.backbone == "tiny" else 512)

    @model_validator(mode="after")
    def _data(self) -> "TrainRecognizerConfig":
        count = len(self.images) + len(self.sources)
        if not count:
            raise ValueError("images: give at least one images table, or sources in a foreign format")
        if self.similarity_group is not None and (len(self.images) != 1 or self.sources or self.repeat):
            raise ValueError("similarity_group: give exactly one images table, no sources and no repeat")
        if self.repeat and len(self.repeat) != count:
            raise ValueError(f"repeat: {len(self.repeat)} numbers for {count} tables and sources")
        return self

    @model_validator(mode="after")
    def _fits(self) -> "TrainRecognizerConfig":
        worlds, parts = self.numerics.worlds, self.numerics.accumulate
        if len(worlds) == 1 and self.global_batch_size % worlds[0]:
            raise ValueError(f"global_batch_size {self.global_batch_size} is not a multiple of {worlds[0]} workers")
        if self.global_batch_size % math.lcm(*worlds):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} with {worlds[0]} to {worlds[-1]} workers: each number of "
                f"them must divide it; give a multiple of {math.lcm(*worlds)}, or another numerics.min_workers"
            )
        for workers in worlds:
            own = self.global_batch_size // workers
            if own % parts:
                raise ValueError(f"numerics.accumulate: a worker's batch of {own} does not divide into {parts} parts")
            if own // parts < 2:
                raise ValueError(
                    f"global_batch_size {self.global_batch_size} leaves each of {workers} workers one image; batch "
                    "normalisation needs two"
                )
        if self.head.sharded and self.numerics.dtype == "float16":
            raise ValueError("head.sharded with dtype float16: the workers' loss scales would part; use bfloat16")
        check_workers(self.numerics, self.how, self.images)
        return self
