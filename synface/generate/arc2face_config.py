"""Options of the generator ``arc2face``."""

from typing import Literal

from pydantic import Field, model_validator

from synface.settings import InputUri, Settings


class Arc2faceOptions(Settings):
    """Which weights, how they are sampled, and how the picture becomes a crop.

    Weights are local folders, or ``hf://owner/name`` (``@revision``) of the Hugging Face hub.
    """

    weights: InputUri | None = Field(default=None, description="Arc2Face: folder with arc2face/ and encoder/")
    base: InputUri | None = Field(
        default=None, description="Stable Diffusion 1.5: folder with vae/, tokenizer/ and scheduler/"
    )
    lcm_lora: InputUri | None = Field(
        default=None, description="LCM-LoRA for SD 1.5: 2 to 4 steps without guidance, a little worse"
    )
    controlnet: InputUri | None = Field(
        default=None, description="ControlNet beside the U-Net: Arc2Face's own (pose), or another of SD 1.5's size"
    )
    control_images: InputUri | None = Field(
        default=None,
        description="images table of its conditions (renderings, drawn landmarks), of the pictures' size: each sample "
        "takes one of them, drawn by key",
    )
    controls: int = Field(
        default=10_000, ge=1, le=10_000_000, description="so many of them, from the table's beginning, may be drawn"
    )
    control_scale: float = Field(default=1.0, ge=0, le=10, description="factor on what the ControlNet adds")
    steps: int | None = Field(
        default=None, ge=1, le=1000, description="DPM-Solver++ steps, or the LCM's; 25, with lcm_lora 4"
    )
    guidance: float | None = Field(default=None, ge=0, le=100, description="3.0, with lcm_lora 1.0, which is none")
    embedder: str = Field(
        default="own",
        pattern="^(own|any|[0-9a-f]{64})$",
        description="whose embeddings are drawn. own: those of arcface.onnx beside the weights; the sha256 of that "
        "recognizer in another form; any: not checked, people then change",
    )
    landmarks: str | None = Field(
        default=None,
        description="package.module:attribute, uint8 RGB [h, w, 3] -> five points [5, 2] or None; default: the crop "
        "stands where FFHQ's alignment puts the face",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="of the networks; noise and solver are float32"
    )
    decode_batch: int = Field(
        default=1, ge=1, le=4096, description="pictures that the VAE decodes at once; 1 takes the least memory"
    )
    compile: bool = Field(default=False, description="the U-Net through torch.compile")

    @model_validator(mode="after")
    def _control(self) -> "Arc2faceOptions":
        if (self.controlnet is None) != (self.control_images is None):
            raise ValueError("controlnet and control_images belong together: the network, and what it is shown")
        return self
