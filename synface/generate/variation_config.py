"""What the samples of an identity are asked to be, and how an embedding-conditioned generator is sampled."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from synface.settings import InputUri, Settings

Degrees = Annotated[float, Field(ge=-90, le=90)]
FORMS = ("fixed", "range", "schedule", "mixture")


def short_form(data: Any) -> Any:
    """A number is fixed; two of them, or ``low,high`` from a command line, are a range."""
    if isinstance(data, str) and "," in data and data.lstrip()[:1] not in ("[", "{"):
        data = [part.strip() for part in data.split(",")]
    if isinstance(data, list | tuple):
        return {"range": data}
    return {"fixed": data} if isinstance(data, int | float | str) else data


def check_one_form(settings: Settings, forms: tuple[str, ...]) -> None:
    """ValueError unless exactly one of these fields is given."""
    given = [name for name in forms if getattr(settings, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(forms)}; got {', '.join(given) or 'none'}")


class MixturePart(Settings):
    """One part of a mixture: a number or a range, and how often it is drawn."""

    fixed: float | None = Field(default=None, ge=-1, le=1)
    range: tuple[float, float] | None = None
    weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "MixturePart":
        if (self.fixed is None) == (self.range is None):
            raise ValueError("give either fixed or range")
        _check_range(self.range)
        return self


class Factor(Settings):
    """A similarity for each sample: a number, ``[low, high]``, or a mapping with one of the four fields."""

    fixed: float | None = Field(default=None, ge=-1, le=1, description="every sample")
    range: tuple[float, float] | None = Field(default=None, description="uniform, drawn per sample")
    schedule: tuple[float, ...] | None = Field(default=None, description="sample k gets the (k modulo length)-th")
    mixture: tuple[MixturePart, ...] | None = Field(default=None, description="one of the parts, drawn per sample")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        return short_form(data)

    @model_validator(mode="after")
    def _one(self) -> "Factor":
        check_one_form(self, FORMS)
        _check_range(self.range)
        for name in ("schedule", "mixture"):
            if getattr(self, name) == ():
                raise ValueError(f"{name}: at least one value")
        if self.schedule is not None and not all(-1 <= value <= 1 for value in self.schedule):
            raise ValueError(f"schedule {list(self.schedule)}: inside [-1, 1]")
        return self


def _check_range(values: tuple[float, float] | None) -> None:
    if values is not None and not -1 <= values[0] <= values[1] <= 1:
        raise ValueError(f"range {list(values)}: inside [-1, 1], low before high")


class Cone(Settings):
    """IDperturb: the embedding itself is turned away from the identity's by a drawn, exact cosine."""

    lower: float = Field(default=0.8, ge=-1, le=1, description="cosines are uniform in [lower, 1]")
    separate: bool = Field(
        default=True,
        description="raise lower to cos(half the angle to the identity's nearest): cones then cannot overlap",
    )


class Angle(Settings):
    """An angle of the head for each sample, degrees: a number, ``[low, high]``, or a mapping with one field."""

    fixed: float | None = Field(default=None, ge=-90, le=90, description="every sample")
    range: tuple[Degrees, Degrees] | None = Field(default=None, description="uniform, drawn per sample")
    schedule: tuple[Degrees, ...] | None = Field(
        default=None, min_length=1, description="sample k gets the (k modulo length)-th"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        return short_form(data)

    @model_validator(mode="after")
    def _one(self) -> "Angle":
        check_one_form(self, ("fixed", "range", "schedule"))
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError(f"range {list(self.range)}: low before high")
        return self


class Pose(Settings):
    """The head's angles, for weights that were trained with them: all that they know, and no others."""

    yaw: Angle | None = None
    pitch: Angle | None = None
    roll: Angle | None = None

    @model_validator(mode="after")
    def _any(self) -> "Pose":
        if not self.model_fields_set:
            raise ValueError("pose: give the angles that the weights know, e.g. {yaw: [-30, 30], pitch: 0}")
        return self


class Variation(Settings):
    """How the samples of one identity differ, for generators that draw an embedding; give m or similarity."""

    m: Factor | None = Field(
        default=None, description="similarity factor that the network is asked: 0.3, or 0,0.1 for a range"
    )
    similarity: Factor | None = Field(
        default=None, description="target similarity, realised through the weights' calibrated dial"
    )
    cone: Cone | None = Field(
        default=None, description="perturb the embedding, besides m (excludes similarity: no cone falls below 0.707)"
    )
    beta: float | None = Field(
        default=None, gt=0, le=10, description="HyperFace: draw normalize(x + beta v), v normal; besides m, no cone"
    )
    pose: Pose | None = Field(
        default=None, description="angles of the head, besides m, for weights that know them; default: any"
    )
    share_noise: bool = Field(
        default=False, description="the values of a schedule share their noise: a row of pictures that m alone changes"
    )

    @model_validator(mode="after")
    def _one(self) -> "Variation":
        if self.m is not None and self.similarity is not None:
            raise ValueError("give either m or similarity (a target, through the dial), not both")
        if self.cone is not None and self.similarity is not None:
            raise ValueError("give either similarity or cone: cones that cannot overlap allow no mid similarity")
        if self.beta is not None and (self.cone is not None or self.similarity is not None):
            raise ValueError("beta goes with m or alone: cone perturbs the embedding too, similarity expects its own")
        if self.pose is not None and self.similarity is not None:
            raise ValueError("pose goes with m: the dial of similarity was measured without one")
        asked = self.m or self.similarity
        if self.share_noise and (asked is None or asked.schedule is None):
            raise ValueError("share_noise needs a schedule, whose values share the noise")
        return self


class SamplerOptions(Settings):
    """How the diffusion model is sampled; what is not given is the weights' own, else as described."""

    solver: Literal["ddim", "dpmsolver++"] | None = Field(default=None, description="dpmsolver++ where nobody says")
    steps: int | None = Field(default=None, ge=1, le=10_000, description="network evaluations an image; 10")
    guidance: float | None = Field(default=None, ge=0, le=100, description="1: none (the paper's)")
    guidance_rescale: float | None = Field(default=None, ge=0, le=1, description="0")
    guidance_interval: tuple[float, float] | None = Field(default=None, description="of t / T in which it works; 0,1")
    eta: float | None = Field(default=None, ge=0, le=1, description="ddim: 0; 1 has the ancestral variance")
    clip: float | None = Field(default=None, gt=0, description="ddim: bound of the estimated x_0 (1 for pixels)")


class DiffusionOptions(Settings):
    """Options of every generator that samples a trained denoiser."""

    weights: InputUri | None = Field(
        default=None, description="folder or URI of `train generator` or `calibrate`; cemiface: cemiface-tiny"
    )
    sampler: SamplerOptions = SamplerOptions()
    inquiries_below: float | Literal["threshold"] | None = Field(
        default=None,
        description="keep only identities whose pairwise cosines stay below this; threshold: the weights' own, "
        "impostors at a stated FAR",
    )
    negative: Literal["nearest", "random"] | None = Field(
        default=None,
        description="guide away from another identity of the run, the nearest one or one drawn by key, instead of "
        "from nobody (NegFaceDiff); needs sampler.guidance above 1 (the paper: 1.5)",
    )
    inquiry_repeats: int = Field(
        default=0, ge=0, le=100_000, description="the first so many samples are copies of the inquiry image"
    )
    inquiry_images: InputUri | None = Field(
        default=None, description="images table that holds the inquiries: an identity's first sample"
    )

    @model_validator(mode="after")
    def _inquiry(self) -> "DiffusionOptions":
        if bool(self.inquiry_repeats) != (self.inquiry_images is not None):
            raise ValueError("inquiry_repeats and inquiry_images belong together: how many copies, and of what")
        if isinstance(self.inquiries_below, float) and not -1 < self.inquiries_below <= 1:
            raise ValueError(f"inquiries_below {self.inquiries_below}: a cosine in (-1, 1]")
        return self


class DcfaceOptions(DiffusionOptions):
    """Options of the generator ``dcface``."""

    style_images: InputUri | None = Field(
        default=None, description="images table whose pictures lend the samples their style"
    )
    styles: int = Field(
        default=10_000, ge=1, le=10_000_000, description="so many of them, from the table's beginning, may be drawn"
    )
