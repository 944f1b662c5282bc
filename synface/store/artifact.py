"""Artifacts: what a verb leaves at its output URI, and the manifest that makes it real.

An output folder holds the verb's files and ``_synface/plan.json`` (what was asked, written before any
work) and ``_synface/manifest.json`` (what was made, written last). No manifest: not finished, and no
reader uses it. The manifest holds no times: a killed and resumed run ends with the same bytes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from synface.core.errors import InputError
from synface.settings import StageConfig, canonical_json, config_hash, hashed_fields, input_uris
from synface.store import uri as uris

PLAN = "_synface/plan.json"
MANIFEST = "_synface/manifest.json"
#: manifests of earlier versions of a table that grew, compacted or lost identities: 00001.json and on
MANIFESTS = "_synface/manifests"
#: signs of life of runs under way (store.leases)
LEASES = "_synface/leases"
MANIFEST_VERSION = 1


#: what reading a damaged JSON file may raise
DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path relative to the output URI, sha256, size, rows (None: not a table)."""

    path: str
    sha256: str
    bytes: int
    rows: int | None = None

    def __post_init__(self) -> None:
        """ValueError for what no writer of ours leaves, a path out of the folder above all."""
        counts = [self.bytes] if self.rows is None else [self.bytes, self.rows]
        sound = isinstance(self.path, str) and isinstance(self.sha256, str)
        sound = sound and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts)
        if not sound or any(part in ("", ".", "..") for part in self.path.split("/")):
            raise ValueError(f"no file of an artifact: {self.path!r}")


@dataclass(frozen=True)
class Manifest:
    """What stands at a URI: files with digests, the configuration's hash, the result's main numbers."""

    verb: str
    kind: str  # "identities", "images", "recognizer", "evaluation", ...
    config_hash: str
    config: dict[str, Any]
    inputs: dict[str, str]
    files: tuple[FileEntry, ...]
    numbers: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    manifest_version: int = MANIFEST_VERSION

    @property
    def content_digest(self) -> str:
        """sha256 of the list of files: equal for equal content, wherever it stands."""
        listing = [[f.path, f.sha256] for f in sorted(self.files, key=lambda f: f.path)]
        return hashlib.sha256(canonical_json(listing).encode()).hexdigest()


def sha256_hex(data: bytes) -> str:
    """sha256 of bytes as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def write_file(output: str, path: str, data: bytes, rows: int | None = None) -> FileEntry:
    """Write one whole file of an artifact and return its entry."""
    uris.write_bytes(uris.join(output, path), data)
    return FileEntry(path, sha256_hex(data), len(data), rows)


def load_manifest(uri: str) -> Manifest | None:
    """The manifest at an output URI, or None where nothing is finished."""
    place = uris.join(uri, MANIFEST)
    return _read_manifest(place) if uris.exists(place) else None


def _read_manifest(place: str) -> Manifest:
    try:
        return parse_manifest(uris.read_bytes(place))
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: damaged manifest ({error}); delete it and run the verb again") from error


def parse_manifest(data: bytes) -> Manifest:
    """A manifest's text. Any of `DAMAGE` for something else."""
    fields = json.loads(data)
    fields["files"] = tuple(FileEntry(**f) for f in fields["files"])
    found = Manifest(**fields)
    texts = (found.verb, found.kind, found.config_hash)
    trees = (found.config, found.inputs, found.numbers, found.versions)
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(t, dict) for t in trees):
        raise TypeError("a field of another type")
    return found


def earlier_versions(uri: str) -> dict[int, Manifest]:
    """The manifests that were followed by another one, by version from 1 on; the files that they list still stand."""
    names = [p for p, _ in uris.list_files(uris.join(uri, MANIFESTS)) if p.endswith(".json")]
    return {int(name[:-5]): _read_manifest(uris.join(uri, MANIFESTS, name)) for name in names}


def keep_version(uri: str) -> int:
    """Keep the current manifest beside the next one, which the caller is about to make; returns the next version.

    Again after a kill: the same.
    """
    data = uris.read_bytes(uris.join(uri, MANIFEST))
    versions = earlier_versions(uri)
    last = max(versions, default=0)
    if last and uris.read_bytes(_version_place(uri, last)) == data:
        return last + 1
    uris.write_bytes(_version_place(uri, last + 1), data)
    return last + 2


def _version_place(uri: str, version: int) -> str:
    return uris.join(uri, MANIFESTS, f"{version:05d}.json")


def require(uri: str, kind: str | None = None) -> Manifest:
    """The manifest at `uri`, or an InputError that says what is missing there."""
    manifest = load_manifest(uri)
    if manifest is None:
        reason = "nothing stands there" if not uris.exists(uri) else "no finished synface result stands there"
        raise InputError(f"{uri}: {reason}; run the verb that makes it first")
    if kind is not None and manifest.kind != kind:
        raise InputError(f"{uri}: holds {manifest.kind!r}, expected {kind!r}")
    return manifest


def content_digest(uri: str) -> str:
    """Digest of an input: of the listed files for an artifact, of the bytes for a single file."""
    manifest = load_manifest(uri)
    if manifest is not None:
        return manifest.content_digest
    if not uris.is_file(uri):
        require(uri)
    return sha256_hex(uris.read_bytes(uri))


def input_digests(config: StageConfig) -> dict[str, str]:
    """Content digest of every input URI of a configuration; InputError if one is missing."""
    return {path: content_digest(uri) for path, uri in input_uris(config).items()}


@dataclass(frozen=True)
class Opened:
    """A verb's output, opened: what is asked, and the manifest if that is already finished."""

    config_hash: str
    fields: dict[str, Any]
    inputs: dict[str, str]
    finished: Manifest | None


def open_output(
    config: StageConfig, digests: dict[str, str] | None = None, components: dict[str, str] | None = None
) -> Opened:
    """Claim `config.output` for this configuration, before any work.

    `digests` are those of the inputs where they are known already; `components` are versions and weight
    digests of what the configuration names (a renderer, a network): they are hashed with it.

    Writes the plan where none stands; continues where the same was asked; returns the manifest where it
    is finished and its files are all there (sizes checked; `synface verify` checks digests).

    Raises:
        InputError: another configuration owns the output (the differences are shown), an input is
            missing, or the output cannot be written.
    """
    inputs = input_digests(config) if digests is None else digests
    fields = asked_fields(config, inputs, components)
    name = config_hash(fields)
    found = read_plan(config.output)
    asked = None if found is None else found["config"]
    if asked is not None and config_hash(asked) != name and _has_work(config.output):
        for earlier in earlier_versions(config.output).values():
            whole = _all_there(config.output, earlier) and not earlier.numbers.get("failed")
            if earlier.config_hash == name and whole:
                return Opened(name, fields, inputs, earlier)
        changes = "\n".join(f"  {line}" for line in differences(asked, fields))
        raise InputError(
            f"{config.output}: holds the result of another configuration; choose another output, or "
            f"delete it. There -> asked now:\n{changes}"
        )
    if asked is None or config_hash(asked) != name:
        uris.check_writable(config.output)
        write_plan(config.output, fields)
    return Opened(name, fields, inputs, _finished(config.output, name))


def asked_fields(config: StageConfig, digests: dict[str, str], components: dict[str, str] | None) -> dict[str, Any]:
    """Everything that names a result, as a plan and a manifest hold it."""
    return hashed_fields(config, digests) | ({"components": components} if components else {})


def write_plan(output: str, fields: dict[str, Any], **more: Any) -> None:
    """Say what is asked: the configuration, and what only its verb understands."""
    uris.write_bytes(uris.join(output, PLAN), (canonical_json({"config": fields, **more}) + "\n").encode())


def read_plan(output: str) -> dict[str, Any] | None:
    """What `write_plan` wrote, or None where there is no plan. InputError for a damaged one."""
    place = uris.join(output, PLAN)
    if not uris.exists(place):
        return None
    try:
        return parse_plan(uris.read_bytes(place))
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: damaged plan ({error}); choose another output or delete it") from error


def parse_plan(data: bytes) -> dict[str, Any]:
    """A plan's text. Any of `DAMAGE` for something else."""
    found = json.loads(data)
    config_hash(found["config"])
    if not isinstance(found["config"]["fields"], dict):
        raise TypeError("a field of another type")
    return found


def _has_work(output: str) -> bool:
    """Whether anything stands at an output besides its plan and result lines (a run refused early leaves those)."""
    paths = (path for path, _ in uris.list_files(output))
    return any(path != PLAN and not path.startswith(("_synface/result-", LEASES)) for path in paths)


def _finished(output: str, name: str) -> Manifest | None:
    manifest = load_manifest(output)
    if manifest is None or manifest.config_hash != name:
        return None
    return manifest if _all_there(output, manifest) else None


def _all_there(output: str, manifest: Manifest) -> bool:
    sizes = dict(uris.list_files(output))
    return all(sizes.get(f.path) == f.bytes for f in manifest.files)


def build_manifest(
    config: StageConfig,
    opened: Opened,
    kind: str,
    files: list[FileEntry],
    numbers: dict[str, Any],
    versions: dict[str, str] | None = None,
) -> Manifest:
    """The manifest of a verb's finished work, not yet written. `numbers` must hold no times."""
    return Manifest(
        verb=config.verb,
        kind=kind,
        config_hash=opened.config_hash,
        config=opened.fields,
        inputs=opened.inputs,
        files=tuple(sorted(files, key=lambda f: f.path)),
        numbers=numbers,
        versions=versions or {},
    )


def write_manifest(output: str, manifest: Manifest) -> None:
    """Write the manifest: from here on the artifact exists."""
    text = json.dumps(asdict(manifest), sort_keys=True, indent=1, allow_nan=False)
    uris.write_bytes(uris.join(output, MANIFEST), (text + "\n").encode())


def commit(
    config: StageConfig,
    opened: Opened,
    kind: str,
    files: list[FileEntry],
    numbers: dict[str, Any],
    versions: dict[str, str] | None = None,
) -> Manifest:
    """Build and write the manifest: from here on the artifact exists. `numbers` must hold no times."""
    manifest = build_manifest(config, opened, kind, files, numbers, versions)
    write_manifest(config.output, manifest)
    return manifest


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``path: old -> new`` for every leaf that differs between two trees of plain data."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in sorted({*old, *new}):
            lines += differences(
                old.get(key, "(default)"), new.get(key, "(default)"), f"{path}.{key}" if path else str(key)
            )
        return lines
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
