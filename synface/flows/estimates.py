"""A recipe's estimate before anything of it is made: each section's sizes follow from those before it."""

from collections.abc import Collection, Mapping
from typing import Any

from synface.core.errors import SynfaceError
from synface.embed import run as embed_run
from synface.embed.config import EmbedConfig
from synface.evaluate import estimates as evaluate_estimates
from synface.evaluate import run as evaluate_run
from synface.evaluate.config import EvaluateConfig
from synface.generate import run as generate_run
from synface.generate.config import GenerateConfig
from synface.generate.generators import find_generator
from synface.generate.plan import plan_shards
from synface.models import weights
from synface.pack import run as pack_run
from synface.pack.config import PackConfig
from synface.settings import StageConfig
from synface.store import artifact, cost
from synface.train import autoencoder_run, data, generator_run, generator_setup, steps_run
from synface.train import run as train_run
from synface.train.config import TrainRecognizerConfig
from synface.train.generator_config import StepsConfig, TrainAutoencoderConfig, TrainGeneratorConfig


class Sizes:
    """What stands or will stand at the outputs: images tables, and (identities, dimensions) of identities tables."""

    def __init__(self) -> None:
        self.tables: dict[str, cost.Table] = {}
        self.identities: dict[str, tuple[int, int]] = {}

    def table(self, uri: str) -> cost.Table:
        """An images table that was planned, or that stands. InputError where there is neither."""
        if uri not in self.tables:
            files = artifact.require(uri, "images").files
            shards = [f for f in files if f.path.endswith(".parquet")]
            self.tables[uri] = cost.Table(sum(f.rows or 0 for f in shards), len(shards), sum(f.bytes for f in shards))
        return self.tables[uri]

    def count(self, uri: str) -> int:
        """Identities of a table of identities or images that was planned, or that stands."""
        if uri in self.identities:
            return self.identities[uri][0]
        found = artifact.require(uri)
        if found.kind == "images":
            return found.numbers["identities"]
        return sum(f.rows or 0 for f in artifact.require(uri, "identities").files)


def estimate(stages: Mapping[str, StageConfig], done: Collection[str] = ()) -> dict[str, Any]:
    """Section -> estimate; a section without a formula, or whose sizes nobody knows yet, says why; and the total.

    What `done` names is made already: others' sizes follow from it, and it costs nothing.
    """
    sizes = Sizes()
    found: dict[str, Any] = {}
    for name, config in stages.items():
        try:
            found[name] = _stage(config, sizes)
        except SynfaceError as error:
            found[name] = {"unknown": str(error)}
    found = {name: e for name, e in found.items() if name not in done}
    known = [e for e in found.values() if "unknown" not in e]
    return {**found, "total": cost.total(known) | {"sections": len(known), "of": len(found)}}


def _stage(config: StageConfig, sizes: Sizes) -> dict[str, Any]:
    if isinstance(config, GenerateConfig):
        return _generate(config, sizes)
    if isinstance(config, EmbedConfig):
        table, dim = sizes.table(config.images), weights.read_config(config.weights).embedding_dim
        # one embedding an identity, and no more than there are images
        sizes.identities[config.output] = (sizes.identities.get(config.images, (table.images, 0))[0], dim)
        return embed_run.estimate(config, table, dim)
    if isinstance(config, PackConfig):
        source = config.pool or config.gallery
        dim = config.dim or (sizes.identities.get(source, (0, 0))[1] if source else 0)
        if not dim:
            raise SynfaceError("dim: neither set nor known from the recipe; run --dry-run of pack behind its input")
        sizes.identities[config.output] = (config.num_identities, dim)
        return pack_run.estimate(config, dim)
    if isinstance(config, TrainRecognizerConfig | StepsConfig):
        return _train(config, sizes)
    if isinstance(config, EvaluateConfig):
        return evaluate_estimates.estimate(config, evaluate_run.pictures_of(config), cost.Traffic(), flip=True)
    if config.verb == "report":
        return cost.page(cost.Traffic())  # what it reads of tables does not grow with them
    raise SynfaceError(f"no formula for {config.verb}")


def _generate(config: GenerateConfig, sizes: Sizes) -> dict[str, Any]:
    count = config.num_identities or sizes.count(str(config.identities))
    description = find_generator(config.generator).describe(config)
    plan = plan_shards(count, config.images_per_identity, config.images_per_shard, description.images_per_minute)
    sizes.tables[config.output] = generate_run.table_size(config, plan)
    sizes.identities[config.output] = (count, 0)
    return generate_run.estimate(config, description, plan)


def _train(config: TrainRecognizerConfig | StepsConfig, sizes: Sizes) -> dict[str, Any]:
    parts = [sizes.table(uri) for uri in config.images]
    known = [t.bytes for t in parts if t.bytes is not None]
    size = sum(known) if len(known) == len(parts) else None
    table = cost.Table(sum(t.images for t in parts), sum(t.shards for t in parts), size)
    if isinstance(config, TrainRecognizerConfig):
        classes = sum(sizes.count(uri) for uri in config.images)
        return train_run.estimate(config, data.steps_per_epoch(table.images, config.global_batch_size), table, classes)
    parameters = _parameters(config)
    kept = steps_run.checkpoints(config, parameters, config.steps, config.how.checkpoint_every)
    return steps_run.estimate(config, config.steps * config.global_batch_size, table, kept)


def _parameters(config: StepsConfig) -> int:
    if isinstance(config, TrainGeneratorConfig):
        return generator_run.parameters(generator_setup.named(config))
    assert isinstance(config, TrainAutoencoderConfig)
    return autoencoder_run.parameters(config)
