"""Configuration of the verb ``report``."""

from typing import ClassVar

from pydantic import Field, model_validator

from synface.settings import InputUri, Settings, StageConfig, input_uris


class NamedInput(Settings):
    """One of several recognizers or evaluations that are shown side by side."""

    name: str = Field(min_length=1, max_length=60)
    uri: InputUri


class ReportConfig(StageConfig):
    """One self-contained HTML page of a run, with every figure as PNG, SVG and CSV beside it."""

    verb: ClassVar[str] = "report"

    title: str = Field(default="synface", max_length=200)
    pool: InputUri | None = Field(default=None, description="identities table that the packing chose from")
    pack: InputUri | None = Field(default=None, description="packed identities")
    images: InputUri | None = Field(default=None, description="generated images")
    recognizer: InputUri | None = Field(default=None, description="trained recognizer")
    evaluation: InputUri | None = Field(default=None, description="its evaluation")
    sweep: InputUri | None = Field(default=None, description="a finished sweep")
    audits: list[NamedInput] = Field(
        default=[], description="audits whose similarities stand side by side: [{name, uri}, ...]"
    )
    similarities: InputUri | None = Field(
        default=None, description="`embed --similarities true` of images: shows them in groups by similarity"
    )
    similarity_groups: int = Field(default=5, ge=2, le=10)
    embedder: InputUri | None = Field(
        default=None, description="recognizer in whose space t-SNE lays out samples of a sweep's points"
    )
    beside: list[NamedInput] = Field(
        default=[],
        description="images of a sweep's identities by other generators, beside its points: [{name, uri}, ...]",
    )
    recognizers: list[NamedInput] = Field(default=[], description="further recognizers: [{name, uri}, ...]")
    evaluations: list[NamedInput] = Field(default=[], description="further evaluations: [{name, uri}, ...]")
    grid_identities: int = Field(default=10, ge=1, le=100, description="rows of the sample grid")
    grid_images: int = Field(default=10, ge=1, le=64, description="images a row")

    @model_validator(mode="after")
    def _something_to_show(self) -> "ReportConfig":
        if not input_uris(self):
            raise ValueError("nothing to report: give at least one of pack, images, recognizer, evaluation, sweep")
        if self.similarities is not None and self.images is None:
            raise ValueError("similarities: give images too, the table that they were measured on")
        if self.embedder is not None and self.sweep is None:
            raise ValueError("embedder: lays out samples of a sweep's points; give sweep too")
        if self.beside and self.sweep is None:
            raise ValueError("beside: images that stand beside the points of a sweep; give sweep too")
        for field in ("recognizers", "evaluations", "audits", "beside"):
            names = [item.name for item in getattr(self, field)]
            if len(set(names)) != len(names):
                raise ValueError(f"{field}: names must differ, got {', '.join(names)}")
        return self
