"""Names of benchmarks: what a user may write under ``benchmarks``. Imports nothing heavy."""

import os
from dataclasses import dataclass
from pathlib import Path

from synface.core.errors import InputError, unknown_name

#: rendered benchmarks -> the split of the head renderer that their identities come from
HEADS: dict[str, str] = {"heads-v1": "test", "heads-val": "val"}
#: the six protocols of a rendered benchmark, by what they stress
PROTOCOLS = ("frontal", "pose", "age", "quality", "mixed", "lookalike")
#: the one protocol of a verification pack
PACK_PROTOCOL = "verification"
#: usual packs, looked for as ``$SYNFACE_DATA/bin/<name>.bin``
PACKS = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw", "cfp_ff", "vgg2_fp")


@dataclass(frozen=True)
class Spec:
    """One entry of ``benchmarks``: a rendered benchmark with some of its protocols, or a pack's URI."""

    name: str
    protocols: tuple[str, ...]
    uri: str | None = None

    @property
    def is_heads(self) -> bool:
        """Whether synface renders it."""
        return self.uri is None


def parse(text: str) -> Spec:
    """``heads-v1``, ``heads-v1/pose``, ``lfw`` or the path or URI of a ``.bin`` file.

    Raises:
        InputError: an unknown name or protocol; the known ones are listed.
    """
    if text.endswith(".bin"):
        return Spec(text.rsplit("/", 1)[-1].removesuffix(".bin"), (PACK_PROTOCOL,), text)
    name, slash, protocol = text.partition("/")
    if name in HEADS:
        if slash and protocol not in PROTOCOLS:
            raise unknown_name(f"protocol of {name}", protocol, PROTOCOLS)
        return Spec(name, (protocol,) if slash else PROTOCOLS)
    if name in PACKS and not slash:
        return Spec(name, (PACK_PROTOCOL,), str(data_folder() / "bin" / f"{name}.bin"))
    known = (*HEADS, *(f"{h}/<protocol>" for h in HEADS), *PACKS, "<path or URI>.bin")
    raise unknown_name("benchmark", text, known)


def parse_all(texts: tuple[str, ...]) -> tuple[Spec, ...]:
    """Every entry, protocols of one rendered benchmark joined.

    Raises:
        InputError: as `parse`; an empty list; two packs of one name, or an entry given twice.
    """
    if not texts:
        raise InputError("benchmarks: give at least one, for example heads-v1")
    found: dict[str, Spec] = {}
    for spec in map(parse, texts):
        before = found.get(spec.name)
        if before is None:
            found[spec.name] = spec
        elif spec.is_heads and before.is_heads and not set(spec.protocols) & set(before.protocols):
            both = {*spec.protocols, *before.protocols}
            found[spec.name] = Spec(spec.name, tuple(p for p in PROTOCOLS if p in both))
        else:
            raise InputError(f"benchmarks: {spec.name!r} is given twice; rename one of the files, or drop it")
    return tuple(found.values())


def data_folder() -> Path:
    """Where users put third-party data: ``$SYNFACE_DATA``, else ``~/.cache/synface/data``."""
    return Path(os.environ.get("SYNFACE_DATA") or Path.home() / ".cache" / "synface" / "data")


def cache_folder() -> str:
    """Where rendered benchmarks are kept: ``$SYNFACE_CACHE``, else ``~/.cache/synface``."""
    return os.environ.get("SYNFACE_CACHE") or str(Path.home() / ".cache" / "synface")
