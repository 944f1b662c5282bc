"""What one step of the generator's training looks at: a pure function of configuration, step and embeddings.

Every worker draws the whole batch's rows and takes its own part; noise is drawn for that part alone.
"""

from dataclasses import dataclass

import numpy as np
import torch

from synface.core import rng
from synface.models.denoisers.config import DenoiserConfig
from synface.train import diffusion, similarity
from synface.train.data import rank_slice
from synface.train.diffusion import Batch
from synface.train.generator_config import TrainGeneratorConfig


@dataclass(frozen=True)
class Rows:
    """A global batch before any pixel is fetched; row numbers are those of the training images."""

    inquiry_n: np.ndarray  # int64, row of `condition_rows`: the image that is conditioned on, or its centre
    target_n: np.ndarray  # int64, the image to restore
    m_n: np.ndarray  # float32
    t_n: np.ndarray  # int64
    conditioned_n: np.ndarray  # bool


def condition_rows(config: TrainGeneratorConfig, embedding_nd: np.ndarray, label_n: np.ndarray) -> np.ndarray:
    """What each image is conditioned on when it is the inquiry, float32: its embedding or its class centre, [n, d].

    The centre is the unit mean of the training images' embeddings of the identity, as ``synface embed`` makes it.
    For ``mixed`` [2 n, d]: the images' embeddings, then their centres.
    """
    if config.inquiry == "image":
        return embedding_nd
    classes, number_n = np.unique(label_n, return_inverse=True)
    sums = np.zeros((len(classes), embedding_nd.shape[1]))
    np.add.at(sums, number_n, embedding_nd.astype(np.float64))
    centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    centre_nd = centres.astype(np.float32)[number_n]
    return centre_nd if config.inquiry == "centre" else np.concatenate([embedding_nd, centre_nd])


def draw_rows(
    config: TrainGeneratorConfig,
    mode: str,
    num_steps: int,
    step: int,
    embedding_nd: np.ndarray,
    condition_nd: np.ndarray,
    label_n: np.ndarray,
) -> Rows:
    """The rows of one step.

    Args:
        config: of the training.
        mode: paper: the target is the inquiry and m is drawn from the grid; identity: the same, and there is no m;
            relation and hybrid: another image, and m is the measured cosine of the condition to its embedding;
            style: another image of the same identity, or the same one.
        num_steps: T.
        step: 0-based.
        embedding_nd: unit embeddings of the training images.
        condition_nd: of `condition_rows`.
        label_n: identity of each image.
    """
    size, seed = config.global_batch_size, config.seed
    draw = rng.generator(seed, "rows", step)
    if mode in ("paper", "identity"):
        inquiry = target = draw.integers(0, len(embedding_nd), size)
        m = np.ones(size, np.float32)
        if mode == "paper":
            m = similarity.draw_m(draw, size, config.m_interval, *config.m_range)
        inquiry = _image_or_centre(config, step, inquiry, len(embedding_nd))
    else:
        pairs = diffusion.relation_pairs(
            draw, embedding_nd, label_n, size, 1.0 if mode == "style" else config.same_share, *config.pair_range,
            candidates=config.candidates,
        )  # fmt: skip
        inquiry, target = _image_or_centre(config, step, pairs.inquiry_n, len(embedding_nd)), pairs.target_n
        cosine = np.einsum("nd,nd->n", condition_nd[inquiry], embedding_nd[target])
        m = np.clip(cosine, -1, 1).astype(np.float32)
    t = diffusion.draw_steps(rng.generator(seed, "times", step), size, num_steps)
    keep = rng.generator(seed, "drop", step).random(size) >= config.drop
    return Rows(inquiry, target, m, t, keep)


def _image_or_centre(config: TrainGeneratorConfig, step: int, image_n: np.ndarray, images: int) -> np.ndarray:
    """Rows of `condition_rows` of some images; of ``mixed`` every second one is the centre's, by chance."""
    if config.inquiry != "mixed":
        return image_n
    return image_n + images * rng.generator(config.seed, "inquiries", step).integers(0, 2, len(image_n))


def part_of(rows: Rows, part: slice) -> Rows:
    """Some rows of a batch."""
    return Rows(rows.inquiry_n[part], rows.target_n[part], rows.m_n[part], rows.t_n[part], rows.conditioned_n[part])


def kept_components(config: TrainGeneratorConfig, description: DenoiserConfig, step: int) -> np.ndarray | None:
    """What contextual partial dropout keeps in a global batch, bool [batch, condition_dim]; None where all is kept."""
    if not description.context_dropout:
        return None
    draw = rng.generator(config.seed, "partial-dropout", step)
    return draw.random((config.global_batch_size, description.condition_dim)) >= description.context_dropout


def kept_poses(config: TrainGeneratorConfig, step: int, pose_na: np.ndarray) -> np.ndarray:
    """Poses of a global batch's targets, float32 [batch, a]; NaN where the pose alone is dropped, by `config.drop`."""
    dropped = rng.generator(config.seed, "drop-pose", step).random(len(pose_na)) < config.drop
    return np.where(dropped[:, None], np.float32(np.nan), pose_na)


def own_parts(size: int, rank: int, world: int, passes: int) -> list[slice]:
    """The rows of one worker's forward passes in a global batch of `size`."""
    own = rank_slice(0, size, rank, world)
    each = (own.stop - own.start) // passes
    return [slice(own.start + i * each, own.start + (i + 1) * each) for i in range(passes)]


def make_batch(
    rows: Rows,
    x0_nchw: np.ndarray,
    noise_nchw: np.ndarray,
    embedding_nd: np.ndarray,
    condition_nd: np.ndarray,
    device: str = "cpu",
    kept_nk: np.ndarray | None = None,
    pose_na: np.ndarray | None = None,
) -> Batch:
    """Tensors of some rows: targets x0 and noise [n, c, h, w] in the rows' order, and the embeddings that belong.

    `kept_nk` is theirs of `kept_components`, `pose_na` of `kept_poses`.
    """

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)

    return Batch(
        x0_nchw=tensor(x0_nchw.astype(np.float32, copy=False)),
        noise_nchw=tensor(noise_nchw),
        t_n=tensor(rows.t_n),
        inquiry_nd=tensor(condition_nd[rows.inquiry_n]),
        target_nd=tensor(embedding_nd[rows.target_n]),
        m_n=tensor(rows.m_n),
        conditioned_n=tensor(rows.conditioned_n),
        kept_nk=None if kept_nk is None else tensor(kept_nk),
        pose_na=None if pose_na is None else tensor(pose_na),
    )


def noise_rows(seed: int, step: int, part: slice, shape: tuple[int, int, int]) -> np.ndarray:
    """Standard normal float32 [rows, c, h, w], keyed by step and row of the global batch."""
    return rng.normal_rows(seed, [("training-noise", step, row) for row in range(part.start, part.stop)], shape)
