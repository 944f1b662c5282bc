"""How many images of a table lie nearer to another identity's inquiry than to their own."""

import numpy as np

from synface.core.errors import SynfaceError
from synface.models.embedding import Embedder
from synface.store import artifact, schemas, tables
from synface.store.formats.verification_bin import decode_image, decode_images

#: images of a table that are measured
IMAGES = 1000


def nearer_to_another(images: str, identities: str, network: Embedder) -> float | None:
    """Share of the table's first images whose nearest inquiry, by cosine, is another identity's.

    Args:
        images: an images table.
        identities: the identities table that it was generated from, one inquiry an identity.
        network: a recognizer.

    Returns:
        None where the identities do not stand there any more, are not those, or are another recognizer's.
    """
    try:
        if artifact.content_digest(identities) != artifact.require(images, "images").inputs.get("identities"):
            return None
        inquiries = tables.read_identities(identities)
    except SynfaceError:
        return None
    if schemas.metadata_of(inquiries.schema).get("embedder_sha256") != network.sha256:
        return None
    row = {name: i for i, name in enumerate(inquiries["identity_id"].to_pylist())}
    encoded: list[bytes] = []
    own: list[int] = []
    for table in tables.iter_images(images, ["image", "identity_id"]):
        for image, name in zip(table["image"].to_pylist(), table["identity_id"].to_pylist(), strict=True):
            if image is not None and image["bytes"] is not None and name in row and len(own) < IMAGES:
                encoded.append(image["bytes"])
                own.append(row[name])
        if len(own) >= IMAGES:
            break
    if not own:
        return None
    side = decode_image(encoded[0], images).width
    x_nd = network.embed(decode_images(encoded, network.size, side, images, 0))
    nearest = (x_nd @ schemas.embeddings(inquiries).T).argmax(1)
    return float((nearest != np.array(own)).mean())
