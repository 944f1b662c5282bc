"""Configuration of the pipeline: a recipe's sections."""

from typing import Any, ClassVar

from pydantic import Field

from synface.settings import Settings


class PipelineConfig(Settings):
    """The whole way: pool -> embed -> pack -> generate -> train recognizer -> evaluate -> report.

    Every section is optional and holds the fields of its verb; what a section does not set (outputs,
    inputs from the sections before it, the seed) is wired here.
    """

    verb: ClassVar[str] = "pipeline"

    output: str = Field(description="folder or URI of the run; every section writes below it")
    recipe: str = Field("", description="name of the recipe, for the report")
    seed: int = Field(0, ge=0, lt=2**62, description="seed of every section that does not set its own")
    pool: dict[str, Any] | None = Field(None, description="a generate section: candidates for the packing")
    embed: dict[str, Any] | None = None
    pack: dict[str, Any] | None = None
    closed_loop: dict[str, Any] | None = Field(
        None, description="corrects the packed identities by what is generated from them"
    )
    generate: dict[str, Any] | None = None
    pool_more: dict[str, Any] | None = Field(None, description="as pool, for generate_more")
    embed_more: dict[str, Any] | None = None
    generate_more: dict[str, Any] | None = Field(
        None, description="a second generate section: other people, another number of images; both are trained on"
    )
    generator_images: dict[str, Any] | None = Field(
        None, description="a generate section: what the generator is trained on; default: what generate makes"
    )
    train_autoencoder: dict[str, Any] | None = None
    train_generator: dict[str, Any] | None = Field(
        None, description="CemiFace on the generated images, or on generator_images: then generate draws by it"
    )
    calibrate: dict[str, Any] | None = Field(None, description="its dial, on the embedded pool's people")
    train_recognizer: dict[str, Any] | None = None
    evaluate: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
