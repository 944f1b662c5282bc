"""Configuration of the verb ``import``."""

from typing import ClassVar, Literal

from pydantic import Field

from synface.settings import InputUri, StageConfig


class ImportConfig(StageConfig):
    """Images in a foreign format -> images table, so that every other verb can use them."""

    verb: ClassVar[str] = "import"

    source: InputUri = Field(
        description="URI of the folder, .rec, .tar, .zip or .lmdb; hashed by its files' names and sizes"
    )
    format: Literal["folder", "lmdb", "recordio", "webdataset", "zip"]
    name: str = Field(default="imported", description="stands as the generator in the table")
    licence: str = Field(min_length=1, description="of the images; a table without one has no card")
    source_type: Literal["digitalCapture", "algorithmicMedia", "trainedAlgorithmicMedia"] = Field(
        description="photographs, renders, or pictures of a trained model"
    )
    images_per_shard: int = Field(default=4096, ge=1, le=1_000_000)
