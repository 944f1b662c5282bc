"""The dataset card: README.md with the header that Hugging Face's Hub and ``datasets`` read.

Made from the manifest alone, so that it says what is there: `data_files` lists exactly the manifest's files. An
audit of just this content may add its leakage.
"""

from typing import Any

import yaml

from synface.core.errors import InputError
from synface.store import artifact
from synface.store import uri as uris
from synface.store.provenance import DIGITAL_SOURCE_TYPES

CARD = "README.md"
#: upper limits of the Hub's `size_categories`
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))

BODY = """
# {title}

{intro}

| | |
|---|---|
| generator | `{generator}` |
| weights sha256 | `{weights}` |
| configuration hash | `{config_hash}` |
| content digest | `{digest}` |
| images that could not be made | {failed} |
| leakage against real galleries | {leakage} |{scored}

## Licences

{licences}

## Columns

`image`, `label` (row of the identity), `identity_id`, `sample`, `m` (similarity factor asked of the network),
`similarity_target`, `similarity_inquiry` (measured; null before scoring), `attributes` (what the generator
knows), `seed`, `generator`, `weights_sha256`, `config_hash`.

## Reading

```python
import datasets
images = datasets.load_dataset("path/to/this/folder", split="train")
```

## Configuration

```yaml
{config}```
"""

LEAKAGE = (
    "{leaking_samples} of {samples} samples ({leaking_identities} identities) at or above cosine "
    "{threshold_cosine:.4f} ({threshold_rule}) to one of {reference_images} images of {reference_identities} people "
    "(content `{reference}`); largest {max_cosine:.4f}; recognizer `{scorer}`"
)

SCORED = """
| similarity measured by | `{scorer}`, weights `{scorer_sha256}` |
| images that its filters refused | {refused} |"""

SYNTHETIC = """\
{images} images of {identities} synthetic identities, {size}x{size} pixels (ArcFace five-point crop, RGB), made by
synface with the generator `{generator}`. No image is a photograph of a person; every image carries the IPTC mark
`{source_type}` ({source_text}) in its XMP metadata."""

IMPORTED = """\
{images} images of {identities} identities, {size}x{size} pixels, imported as `{generator}` and stated to be
`{source_type}` (IPTC digital source type). The images are copied as they were, without a mark of synface."""


def card(uri: str, audit: str | None = None) -> dict[str, Any]:
    """Write the card of a finished images table again; the verb ``synface card``.

    Args:
        uri: of the table.
        audit: URI of a `synface audit` of the table as it is now, against a reference: its leakage is stated.

    Raises:
        InputError: not finished, no licence is known, or an audit of other content or without a reference.
    """
    manifest = artifact.require(uri, "images")
    leakage = None if audit is None else leakage_text(audit, manifest)
    write_card(uri, manifest, leakage)
    found = {"uri": uris.join(uri, CARD), "images": manifest.numbers.get("images")}
    return found if leakage is None else {**found, "leakage": leakage}


def leakage_text(audit: str, manifest: artifact.Manifest) -> str:
    """What an audit of the table found, in one line of the card."""
    found = artifact.require(audit, "audit")
    audited = found.inputs.get("images", "")
    if audited != manifest.content_digest:
        raise InputError(
            f"audit {audit}: of a table with content {audited[:12]}, this one has {manifest.content_digest[:12]}; "
            "audit it as it is now"
        )
    if "leakage" not in found.numbers:
        raise InputError(f"audit {audit}: made without a reference, so it knows of no leakage; audit with --reference")
    return LEAKAGE.format(
        **found.numbers["leakage"],
        scorer=found.numbers["scorer_sha256"][:12],
        reference=found.inputs["reference"][:12],
    )


def write_card(output: str, manifest: artifact.Manifest, leakage: str | None = None) -> None:
    """Write README.md beside the data. It is not listed in the manifest: its text names no result."""
    uris.write_bytes(uris.join(output, CARD), card_text(manifest, leakage).encode())


def publish(output: str, manifest: artifact.Manifest) -> None:
    """The card, then the manifest: from here on this version of the table is the one that readers get."""
    write_card(output, manifest)
    artifact.write_manifest(output, manifest)


def card_text(manifest: artifact.Manifest, leakage: str | None = None) -> str:
    """The card of an images table; `leakage` is an audit's line, if there is one.

    Raises:
        InputError: the manifest names no licence of the generator or of one of its sources.
    """
    numbers = manifest.numbers
    licence, sources = numbers.get("licence"), numbers.get("sources", {})
    if not licence or not all(sources.values()):
        unknown = "the generator" if not licence else next(k for k, v in sources.items() if not v)
        raise InputError(
            f"no card without licences: none is known for {unknown}; name it in the generator's description"
        )
    header = yaml.safe_dump(_header(manifest, licence), sort_keys=False, width=1000)
    imported = manifest.verb == "import"
    facts = {
        "images": numbers["images"],
        "identities": numbers["identities"] - numbers.get("erased_identities", 0),
        "size": numbers["image_size"],
        "generator": numbers["generator"],
        "source_type": numbers["source_type"],
        "source_text": DIGITAL_SOURCE_TYPES.get(numbers["source_type"], ""),
    }
    body = BODY.format(
        title="Face-recognition data" if imported else "Synthetic face-recognition data",
        intro=(IMPORTED if imported else SYNTHETIC).format(**facts),
        generator=numbers["generator"],
        weights=numbers["weights_sha256"] or "none",
        config_hash=manifest.config_hash,
        digest=manifest.content_digest,
        failed=numbers["failed"],
        leakage=leakage or "not measured yet (`synface audit`, then `synface card URI --audit AUDIT`)",
        scored=SCORED.format(**numbers) if "scorer_sha256" in numbers else "",
        licences="\n".join(f"* {name}: {text}" for name, text in {"the images": licence, **sources}.items()),
        config=yaml.safe_dump(manifest.config, sort_keys=True),
    )
    return f"---\n{header}---\n{body}"


def _licence(licence: str) -> dict[str, str]:
    """The Hub knows short names only; a text goes in as the name of an ``other`` licence."""
    if " " not in licence:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence.removeprefix("other: ")}


def _header(manifest: artifact.Manifest, licence: str) -> dict[str, Any]:
    images = int(manifest.numbers["images"])
    paths = [f.path for f in manifest.files if f.path.endswith(".parquet")]
    return {
        **_licence(licence),
        "pretty_name": f"synface {manifest.numbers['generator']} {manifest.config_hash[:12]}",
        "task_categories": ["image-classification"],
        "tags": ["face-recognition", "synface"] + ([] if manifest.verb == "import" else ["synthetic"]),
        "size_categories": [next((name for limit, name in SIZES if images < limit), "n>10M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": paths}]}],
    }
