"""What each worker of a generator's (or autoencoder's) training does. No Ray; a process group if there is one."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed

from synface.core import crops, rng
from synface.models import weights
from synface.models.denoisers.unet import Denoiser
from synface.ops import metrics
from synface.ops.progress import Progress, say
from synface.store import schemas, tables
from synface.store import uri as uris
from synface.train import average_loop, generator_batches, generator_setup, looks, loop, poses, prepared
from synface.train.autoencoder import AutoencoderTrainee
from synface.train.average_loop import Place, State
from synface.train.data import GIB, Catalog, ImageSource
from synface.train.diffusion import Batch
from synface.train.generator_config import StepsConfig, TrainAutoencoderConfig, TrainGeneratorConfig
from synface.train.generator_setup import Inquiries, Networks
from synface.train.loop import Diverged
from synface.train.tracking import TensorBoard

Watch = Callable[[State, tuple[float, ...], float], None]
Stopping = Callable[[State], bool]


def barrier() -> None:
    """Wait for the other workers, where there are any."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def open_source(config: StepsConfig, catalog: Catalog) -> ImageSource:
    """The pixels: decoded in memory, else encoded (batches take images from everywhere, so nothing streams)."""
    return ImageSource(catalog, config.image_size, config.how.memory_gb * GIB, None, config.how.decode_threads)


def train_autoencoder(
    config: TrainAutoencoderConfig,
    catalog: Catalog,
    folder: str,
    device: str,
    stopping: Stopping = lambda state: False,
) -> Diverged | None:
    """Train the autoencoder from its newest checkpoint on."""
    place = average_loop.place_of(device)
    state = average_loop.build_state(config, lambda: AutoencoderTrainee(config), place)
    resume(config, state, folder, place)
    if state.step >= config.steps:
        return None
    source = open_source(config, catalog)
    with TensorBoard(config.output, state.step, enabled=place.rank == 0) as board:
        diverged = average_loop.run_steps(
            config, state, place, autoencoder_batches(config, source, len(catalog), place, state.step),
            saver(folder, place), stopping, watcher(config, place, state.step, board),
        )  # fmt: skip
    source.close()
    return diverged


def autoencoder_batches(
    config: TrainAutoencoderConfig, source: ImageSource, count: int, place: Place, first_step: int
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """(images [n, 3, s, s], standard normal noise for the latents) of this worker's passes, step by step."""
    parts = generator_batches.own_parts(
        config.global_batch_size, place.rank, place.world, config.numerics.accumulation
    )
    latent = AutoencoderTrainee.latent_shape(config)
    for step in range(first_step, config.steps):
        index = rng.generator(config.seed, "rows", step).integers(0, count, config.global_batch_size)
        passes = []
        for part in parts:
            x = torch.from_numpy(crops.to_network(source.take(index[part]))).to(place.device)
            noise = torch.from_numpy(generator_batches.noise_rows(config.seed, step, part, latent)).to(place.device)
            passes.append((x.contiguous(memory_format=torch.channels_last), noise))
        yield passes


def train_generator(
    config: TrainGeneratorConfig, catalog: Catalog, folder: str, device: str, stopping: Stopping = lambda state: False
) -> Diverged | None:
    """Prepare the images, then train the denoiser from its newest checkpoint on."""
    place = average_loop.place_of(device)
    networks = generator_setup.load_networks(config, device)
    state = average_loop.build_state(config, lambda: generator_setup.make_trainee(config, networks), place)
    resume(config, state, folder, place)
    if state.step >= config.steps:
        return None
    source = open_source(config, catalog)
    made = prepared.prepare(folder, len(catalog), source, networks.embedder, networks.autoencoder, place, barrier)
    train_n, held_n = generator_setup.split_identities(config, catalog)
    clean = clean_samples(source, made)
    pose = poses.read(config.images, networks.description.pose) if networks.description.pose else None
    if not state.facts:
        state.facts = fix_facts(config, state, made, clean, catalog.labels, train_n, held_n, pose)
        if place.rank == 0:
            say(f"train: {state.facts}")
    batches = generator_batches_of(config, networks, made, clean, catalog.labels, train_n, place, state.step, pose)
    with TensorBoard(config.output, state.step, enabled=place.rank == 0) as board:
        watch = watcher(config, place, state.step, board)
        if place.rank == 0 and config.how.samples_every is not None:
            inquiries = open_inquiries(config, state.facts["inquiries"], made, source, catalog.labels, train_n, held_n)
            watch = looking(config, networks, inquiries, place, board, watch)
        diverged = average_loop.run_steps(config, state, place, batches, saver(folder, place), stopping, watch)
    source.close()
    return diverged


def clean_samples(source: ImageSource, made: prepared.Prepared) -> Callable[[np.ndarray], np.ndarray]:
    """Image numbers to x_0: latents, or pixels in [-1, 1]."""
    latent = made.latent_nchw
    if latent is None:
        return lambda rows: crops.to_network(source.take(rows))
    return lambda rows: latent[rows].astype(np.float32)


def fix_facts(
    config: TrainGeneratorConfig,
    state: State,
    made: prepared.Prepared,
    clean: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    train_n: np.ndarray,
    held_n: np.ndarray,
    pose_na: np.ndarray | None = None,
) -> dict[str, Any]:
    """Fill the ridge means (of the network and its average), and say what was measured before the first step."""
    network: Denoiser = state.model.network  # type: ignore[assignment]
    facts = generator_setup.set_mean(network, config, made.embedding_nd, clean, train_n, held_n)
    if pose_na is not None:
        facts |= generator_setup.set_pose_mean(network, pose_na, clean, train_n)
    for fitted, kept in zip(network.buffers(), state.average.buffers(), strict=True):
        kept.copy_(fitted)
    inquiries = generator_setup.inquiry_threshold(config, made.embedding_nd, labels, held_n)
    counts = {"training_images": len(train_n), "held_out_images": len(held_n)}
    return {**facts, **counts, "inquiries": inquiries}


def generator_batches_of(
    config: TrainGeneratorConfig,
    networks: Networks,
    made: prepared.Prepared,
    clean: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    train_n: np.ndarray,
    place: Place,
    first_step: int,
    pose: np.ndarray | None = None,
) -> Iterator[list[Batch]]:
    """The batches of this worker's forward passes, step by step; `pose` of all images, float32 [n, a]."""
    description = networks.description
    shape = (description.channels, description.sample_size, description.sample_size)
    embedding, label = made.embedding_nd[train_n], labels[train_n]
    condition = generator_batches.condition_rows(config, embedding, label)
    parts = generator_batches.own_parts(
        config.global_batch_size, place.rank, place.world, config.numerics.accumulation
    )
    for step in range(first_step, config.steps):
        rows = generator_batches.draw_rows(
            config, description.mode, description.num_train_steps, step, embedding, condition, label
        )
        kept = generator_batches.kept_components(config, description, step)
        posed = None
        if pose is not None:
            posed = generator_batches.kept_poses(config, step, pose[train_n[rows.target_n]])
        passes = []
        for part in parts:
            own = generator_batches.part_of(rows, part)
            noise = generator_batches.noise_rows(config.seed, step, part, shape)
            x0 = clean(train_n[own.target_n])
            more = [None if rows_of is None else rows_of[part] for rows_of in (kept, posed)]
            passes.append(generator_batches.make_batch(own, x0, noise, embedding, condition, place.device, *more))
        yield passes


def resume(config: StepsConfig, state: State, folder: str, place: Place) -> None:
    """Continue from the newest whole checkpoint, if there is one."""
    data = loop.newest_checkpoint(folder)
    if data is not None:
        average_loop.unpack_checkpoint(state, data, place.device)
        if place.rank == 0:
            say(f"train: continues at step {state.step} of {config.steps}")


def saver(folder: str, place: Place) -> Callable[[State], None]:
    """Rank 0 writes; the others wait, so that none runs ahead of a checkpoint that fails."""

    def save(state: State) -> None:
        if place.rank == 0:
            loop.write_checkpoint(folder, state.step, average_loop.pack_checkpoint(state))
        barrier()

    return save


def watcher(config: StepsConfig, place: Place, first_step: int, board: TensorBoard) -> Watch:
    """Progress on stderr and TensorBoard, from rank 0."""
    if place.rank != 0:
        return lambda state, seen, lr: None
    size = config.global_batch_size
    progress = Progress("train", config.steps * size, "images", done=first_step * size)

    def watch(state: State, seen: tuple[float, ...], lr: float) -> None:
        progress.advance(size, f"step {state.step}/{config.steps} loss {seen[0]:.4f}")
        metrics.show(metrics.LOSS, "train", seen[0])
        metrics.show(metrics.STEP, "train", state.step)
        if state.step % config.how.log_every == 0:
            named = zip(("loss", *state.model.names), seen, strict=True)
            board.add(state.step, {f"train/{name}": x for name, x in named} | {"train/lr": lr})

    return watch


def open_inquiries(
    config: TrainGeneratorConfig,
    facts: dict[str, Any],
    made: prepared.Prepared,
    source: ImageSource,
    labels: np.ndarray,
    train_n: np.ndarray,
    held_n: np.ndarray,
) -> Inquiries:
    """Whom the looks show: ``how.inquiries``, else one picture of each held-out (or trained) identity; filtered."""
    threshold, count = facts["threshold"], config.how.samples_images
    if config.how.inquiries is not None:
        embedding = schemas.embeddings(read_inquiries(config.how.inquiries, config.embedder))
        return Inquiries(embedding[generator_setup.choose_inquiries(embedding, threshold, count)], None)
    rows = np.array(list(generator_setup.first_images(labels, held_n if len(held_n) else train_n)))
    rows = rows[generator_setup.choose_inquiries(made.embedding_nd[rows], threshold, count)]
    return Inquiries(made.embedding_nd[rows], source.take(rows))


def styles_of(images_nhwc: np.ndarray, networks: Networks, device: str) -> np.ndarray:
    """Clean samples float32 [n, c, h, w] of some pictures: whose style a look's samples take."""
    if networks.autoencoder is None:
        return crops.to_network(images_nhwc)
    return prepared.encode(networks.autoencoder, images_nhwc, device).astype(np.float32)


def read_inquiries(uri: str, embedder: str) -> Any:
    """An identities table of E_id's own embeddings.

    Raises:
        InputError: no such table, or embeddings of another recognizer.
    """
    table = tables.read_identities(uri)
    own = weights.read_config(embedder).sha256
    schemas.check_embedder(
        schemas.metadata_of(table.schema), embedder, own, f"how.inquiries {uri}", "the training's embedder is"
    )
    return table


def looking(
    config: TrainGeneratorConfig,
    networks: Networks,
    inquiries: Inquiries,
    place: Place,
    board: TensorBoard,
    watch: Watch,
) -> Watch:
    """`watch`, and every so many steps a grid of samples and the dial."""
    every = config.how.samples_every
    assert every is not None
    style = None
    if networks.description.mode == "style":
        assert inquiries.images_nhwc is not None  # generator_run refused how.inquiries
        style = styles_of(inquiries.images_nhwc, networks, place.device)

    def both(state: State, seen: tuple[float, ...], lr: float) -> None:
        watch(state, seen, lr)
        if state.step % every and state.step != config.steps:
            return
        found = looks.look(
            state.average, networks.autoencoder, networks.embedder, inquiries.embedding_nd, config.seed, place.device,  # type: ignore[arg-type]
            style_nchw=style,
        )  # fmt: skip
        board.add(state.step, found.numbers())
        say(f"train: step {state.step}: {found.text()}")
        picture = looks.grid_png(found.images, inquiries.images_nhwc)
        uris.write_bytes(uris.join(config.output, looks.FOLDER, f"step-{state.step:09d}.png"), picture)

    return both
