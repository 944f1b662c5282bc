"""Arc2Face with small random weights, against diffusers' own pipeline and formulas written out."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image

from synface.core import crops, rng
from synface.core.errors import InputError
from synface.models.arc2face import files
from synface.models.arc2face.model import (
    CONTROL_PARAMETERS,
    CONTROL_TERAFLOP,
    DECODE_TERAFLOP,
    PARAMETERS,
    UNET_TERAFLOP,
    Arc2Face,
    Arc2faceSettings,
)

SHORT = Arc2faceSettings(steps=3, micro_batch=3)


@pytest.fixture(scope="module")
def found(miniature):
    return files.find({**miniature, "lcm_lora": None})


@pytest.fixture(scope="module")
def model(found):
    return Arc2Face(found, SHORT)


@pytest.fixture(scope="module")
def faces():
    x = rng.generator(3).standard_normal((4, 512))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def noise(keys, shape=(4, 8, 8), seed=0):
    return torch.from_numpy(rng.normal_rows(seed, [(*k, "noise") for k in keys], shape))


def test_the_prompt_is_the_one_of_a_vocabulary_that_knows_the_face(found, model, faces):
    """An encoder whose table has the padded embedding as the word "id" says the same, one face at a time."""
    with torch.inference_mode():
        together = model.encode(torch.from_numpy(faces))
    assert together.shape == (4, 77, 768)
    place = found["base"].folder / "tokenizer" / "vocab.json"
    word = json.loads(place.read_text())["id</w>"]
    table = model._encoder.get_input_embeddings().weight
    before = table[word].clone()
    for face, row in zip(faces, together, strict=True):
        with torch.no_grad():
            table[word] = torch.from_numpy(np.concatenate([face, np.zeros(256, np.float32)]))
            one = model._encoder(input_ids=model._ids).last_hidden_state[0]
        torch.testing.assert_close(row, one, atol=2e-6, rtol=1e-5)
    with torch.no_grad():
        table[word] = before
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize("guidance", [3.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_pictures_are_those_of_diffusers_pipeline(found, model, faces, guidance):
    """The published way, one face at a time: StableDiffusionPipeline with DPMSolverMultistepScheduler."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    base = found["base"].folder
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", model_max_length=77)
    pipeline = StableDiffusionPipeline(
        vae=model._vae, text_encoder=model._encoder, tokenizer=tokenizer, unet=model._unet,
        scheduler=DPMSolverMultistepScheduler.from_config(model._schedule), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    settings = dataclasses.replace(SHORT, guidance=guidance)
    own = Arc2Face(found, settings) if guidance != SHORT.guidance else model
    keys = [("p", k) for k in range(4)]
    pictures = own.sample(faces, 0, keys)
    assert pictures.shape == (4, 64, 64, 3)
    for i in (0, 3):
        with torch.inference_mode():
            prompt = own.encode(torch.from_numpy(faces[i : i + 1]))
        expected = pipeline(
            prompt_embeds=prompt, negative_prompt="" if guidance != 1 else None, latents=noise(keys[i : i + 1]),
            num_inference_steps=3, guidance_scale=guidance, output_type="np",
        ).images[0]  # fmt: skip
        assert np.abs(pictures[i].astype(float) - 255 * expected).max() <= 1
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 20
    same_noise = own.sample(faces[:2], 0, [("p", 0)] * 2)
    assert np.abs(same_noise[0].astype(int) - same_noise[1]).max() > 3  # the face is seen


def test_many_at_once_are_each_alone(found, model, faces):
    keys = [("p", k) for k in range(4)]
    together = model.sample(faces, 5, keys)
    for i in range(4):
        assert np.array_equal(model.sample(faces[i : i + 1], 5, keys[i : i + 1])[0], together[i])
    # unpadded, other sizes of the forward pass differ in the last bits only
    for change in ({"micro_batch": 1}, {"micro_batch": 4, "decode_batch": 3}):
        other = Arc2Face(found, dataclasses.replace(SHORT, **change)).sample(faces, 5, keys)
        assert np.abs(other.astype(int) - together).max() <= 1


@pytest.fixture(scope="module")
def controlled(miniature, controlnet):
    return files.find({**miniature, "lcm_lora": None, "controlnet": controlnet})


@pytest.fixture(scope="module")
def shown():
    return rng.generator(4).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("guidance", [3.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_controlled_pictures_are_those_of_diffusers_pipeline(controlled, faces, shown, guidance):
    """StableDiffusionControlNetPipeline, one face and one condition at a time."""
    from diffusers import StableDiffusionControlNetPipeline
    from transformers import CLIPTokenizer

    model = Arc2Face(controlled, dataclasses.replace(SHORT, guidance=guidance, control_scale=0.7))
    tokenizer = CLIPTokenizer.from_pretrained(controlled["base"].folder / "tokenizer", model_max_length=77)
    pipeline = StableDiffusionControlNetPipeline(
        vae=model._vae, text_encoder=model._encoder, tokenizer=tokenizer, unet=model._unet,
        controlnet=model._control, scheduler=DPMSolverMultistepScheduler.from_config(model._schedule),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    keys = [("p", k) for k in range(4)]
    pictures = model.sample(faces, 0, keys, shown)
    for i in (0, 3):
        with torch.inference_mode():
            prompt = model.encode(torch.from_numpy(faces[i : i + 1]))
        expected = pipeline(
            prompt_embeds=prompt, negative_prompt="" if guidance != 1 else None, latents=noise(keys[i : i + 1]),
            image=Image.fromarray(shown[i]), num_inference_steps=3, guidance_scale=guidance,
            controlnet_conditioning_scale=0.7, output_type="np",
        ).images[0]  # fmt: skip
        assert np.abs(pictures[i].astype(float) - 255 * expected).max() <= 1


def test_a_controlnet_in_a_batch(controlled, model, faces, shown):
    keys = [("p", k) for k in range(4)]
    settings = dataclasses.replace(SHORT, control_scale=1.0)
    made = Arc2Face(controlled, settings)
    together = made.sample(faces, 5, keys, shown)
    for i in range(4):
        assert np.array_equal(made.sample(faces[i : i + 1], 5, keys[i : i + 1], shown[i : i + 1])[0], together[i])
    other = made.sample(faces[:2], 5, keys[:2], shown[2:])
    assert np.abs(other.astype(int) - together[:2]).max() > 3  # the condition is seen
    made.settings = dataclasses.replace(settings, control_scale=0.0)
    assert np.array_equal(made.sample(faces[:2], 5, keys[:2], shown[:2]), model.sample(faces[:2], 5, keys[:2]))


def test_what_a_controlnet_refuses(controlled, model, faces, shown, tmp_path):
    made = Arc2Face(controlled, dataclasses.replace(SHORT, control_scale=1.0))
    for network, given in ((made, None), (model, shown)):
        with pytest.raises(InputError, match="a ControlNet and pictures for it belong together"):
            network.sample(faces, 0, [("p", 0)] * 4, given)
    with pytest.raises(InputError, match=r"conditions \[4, 32, 64, 3\]"):
        made.sample(faces, 0, [("p", 0)] * 4, shown[:, :32])
    unet = ControlNetModel(
        in_channels=4, block_out_channels=(16, 32), down_block_types=("DownBlock2D",) * 2, layers_per_block=1,
        cross_attention_dim=768, attention_head_dim=4, norm_num_groups=8, transformer_layers_per_block=1,
        conditioning_embedding_out_channels=(16, 16, 16, 16),
    )  # fmt: skip
    unet.save_pretrained(tmp_path)  # at the root, as other ControlNets lie
    places = {"weights": controlled["weights"].folder, "base": controlled["base"].folder, "controlnet": tmp_path}
    with pytest.raises(InputError, match=r"block_out_channels is .*16, 32.* there.*not a ControlNet for it"):
        Arc2Face(files.find({k: str(v) for k, v in places.items()}), dataclasses.replace(SHORT, control_scale=1.0))


def test_published_settings():
    assert Arc2faceSettings.of(False) == Arc2faceSettings(25, 3.0, False)
    assert Arc2faceSettings.of(True) == Arc2faceSettings(4, 1.0, True)
    assert Arc2faceSettings.of(True, steps=2).steps == 2
    with pytest.raises(InputError, match=r"arc2face.steps = 51: from 1 to 50 with lcm_lora"):
        Arc2faceSettings.of(True, steps=51)
    # 25 guided steps and a decoded picture, at two operations a multiply-add
    assert Arc2faceSettings.of(False).teraflop == pytest.approx(50 * 0.803 + 2.515)
    assert Arc2faceSettings.of(True, steps=2).teraflop == pytest.approx(2 * 0.803 + 2.515)
    assert Arc2faceSettings.of(True, steps=2, control_scale=1.0).teraflop == pytest.approx(2 * 1.086 + 2.515)


@pytest.mark.slow
def test_the_estimates_arithmetic_is_counted_on_the_published_sizes():
    """Networks of Stable Diffusion 1.5's sizes without memory behind them, counted layer by layer."""
    from torch.utils.flop_counter import FlopCounterMode

    def teraflop(network, *args, **more):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(*args, **more)
        return counter.get_total_flops() / 1e12

    def numbers(network):
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        x, t, prompt = torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.zeros(1, 77, 768)
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        control = ControlNetModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        )  # fmt: skip
        shown = torch.zeros(1, 3, 512, 512)
        assert teraflop(unet, x, t, encoder_hidden_states=prompt) == pytest.approx(UNET_TERAFLOP, abs=1e-3)
        assert teraflop(vae.decode, x) == pytest.approx(DECODE_TERAFLOP, abs=1e-3)
        found = teraflop(control, x, t, encoder_hidden_states=prompt, controlnet_cond=shown)
        assert found == pytest.approx(CONTROL_TERAFLOP, abs=1e-3)
    assert numbers(unet) + 123_060_480 + numbers(vae) == PARAMETERS and numbers(control) == CONTROL_PARAMETERS


def test_lcm_steps_are_the_consistency_models(miniature, faces):
    """Luo et al. 2023: x0 of the predicted noise between its boundary scalings, then keyed noise of the next time."""
    found = files.find(miniature)
    model = Arc2Face(found, Arc2faceSettings.of(True, steps=3, micro_batch=2))
    keys = [("p", 0), ("q", 1)]
    pictures = model.sample(faces[:2], 9, keys)
    bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    times = model.scheduler().timesteps.tolist()
    assert times == [999, 679, 339]  # every 20th time step is the teacher's; 3 of its 50, spaced evenly
    x = noise(keys, seed=9)
    with torch.inference_mode():
        prompt = model.encode(torch.from_numpy(faces[:2]))
        for step, t in enumerate(times):
            eps = model._unet(x, t, encoder_hidden_states=prompt).sample
            x0 = (x - (1 - bar[t]).sqrt() * eps) / bar[t].sqrt()
            scaled = 10.0 * t
            x = x0 * scaled / (scaled**2 + 0.25) ** 0.5 + x * 0.25 / (scaled**2 + 0.25)
            if step < 2:
                after = times[step + 1]
                fresh = rng.normal_rows(9, [(*k, "step-noise", step) for k in keys], (4, 8, 8))
                x = bar[after].sqrt() * x + (1 - bar[after]).sqrt() * torch.from_numpy(fresh)
        expected = crops.from_network(model._vae.decode(x / 0.18215).sample.numpy())
    assert np.abs(pictures.astype(int) - expected).max() <= 1


def test_lcm_leaves_the_global_generator_alone(miniature, faces):
    model = Arc2Face(files.find(miniature), Arc2faceSettings.of(True, steps=2, micro_batch=1))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    model.sample(faces[:1], 0, [("p", 0)])
    assert torch.equal(before, torch.random.get_rng_state())


def test_half_precision_draws_the_same_picture(found, model, faces):
    half = Arc2Face(found, dataclasses.replace(SHORT, dtype="bfloat16"))
    keys = [("p", k) for k in range(2)]
    a, b = half.sample(faces[:2], 0, keys).astype(float), model.sample(faces[:2], 0, keys).astype(float)
    # far nearer to its own picture than two pictures are to each other
    assert 0 < np.abs(a - b).mean() < 0.25 * np.abs(b[0] - b[1]).mean()


def test_attention_is_pytorchs(model):
    kinds = {type(p).__name__ for p in model._unet.attn_processors.values()}
    assert kinds == {"AttnProcessor2_0"} and model._encoder.config._attn_implementation == "sdpa"


@pytest.mark.slow
def test_a_compiled_network_draws_the_same(found, model, faces, monkeypatch):
    """Traced as a whole, run by the plain backend: what a code generator makes of it is PyTorch's to test."""
    compiled = []
    plain = torch.compile

    def traced(module):
        compiled.append(module)
        return plain(module, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", traced)
    made = Arc2Face(found, SHORT, compiled=True).sample(faces[:1], 0, [("p", 0)])
    assert len(compiled) == 1 and np.array_equal(made, model.sample(faces[:1], 0, [("p", 0)]))


def test_files_that_do_not_belong_together(miniature, tmp_path, faces, model):
    def changed(name, change):
        places = {k: str(tmp_path / name / k) for k in ("weights", "base")}
        for key, place in places.items():
            shutil.copytree(miniature[key], place)
        change(tmp_path / name)
        return files.find({**places, "lcm_lora": None})

    def drop_a_tensor(folder):
        place = folder / "weights" / "encoder" / "pytorch_model.bin"
        state = torch.load(place, weights_only=True)
        del state["text_model.final_layer_norm.bias"]
        torch.save(state, place)

    with pytest.raises(InputError, match=r"another architecture.*final_layer_norm\.bias: missing"):
        Arc2Face(changed("tensor", drop_a_tensor), SHORT)
    place = "base/tokenizer/merges.txt"
    with pytest.raises(InputError, match="no single token 'id'"):
        Arc2Face(changed("merges", lambda f: (f / place).write_text("#version: 0.2\n")), SHORT)
    broken = "weights/arc2face/diffusion_pytorch_model.safetensors"
    with pytest.raises(InputError, match="cannot be loaded as UNet2DConditionModel"):
        Arc2Face(changed("unet", lambda f: (f / broken).write_bytes(b"x" * 20)), SHORT)
    with pytest.raises(InputError, match=r"embeddings \[4, 256\]"):
        model.sample(faces[:, :256], 0, [("p", 0)] * 4)
