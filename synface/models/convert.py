"""``synface convert``: a released recognizer or generator as a weights folder."""

from typing import Any

from synface.core.errors import InputError
from synface.models import checkpoints
from synface.models.denoisers import release


def convert(
    uri: str,
    layout: str,
    architecture: str,
    licence: str,
    training_data: str,
    output: str,
    colour_order: str | None = None,
    embedding_dim: int | str | None = None,
    input_size: int | str | None = None,
    autoencoder: str | None = None,
    embedder: str | None = None,
) -> dict[str, Any]:
    """Make a weights folder of a released checkpoint; every verb takes it from then on.

    Args:
        uri: of the file.
        layout: of a recognizer (`checkpoints.convert`), or ``idiffface`` (`release.convert`).
        architecture: of the backbone; ``idiffface`` of a generator of that layout (sizes are read off its tensors).
        licence: of the released weights.
        training_data: one sentence: what they were trained on.
        output: URI of the new folder.
        colour_order: RGB or BGR (recognizers).
        embedding_dim: of the feature (recognizers); 512 by default.
        input_size: pixels; 112, of a generator 128 by default.
        autoencoder: folder or checkpoint (generators).
        embedder: weights folder of the recognizer whose embeddings it draws (generators).

    Raises:
        InputError: also options of the other kind.
    """
    if layout != release.LAYOUT:
        for name, value in (("autoencoder", autoencoder), ("embedder", embedder)):
            if value is not None:
                raise InputError(f"--{name}: belongs to --layout {release.LAYOUT}; leave it out")
        dim, size = embedding_dim or 512, input_size or 112
        return checkpoints.convert(uri, layout, architecture, licence, training_data, output, colour_order, dim, size)
    if architecture != release.LAYOUT:
        raise InputError(f"--architecture {architecture!r}: of layout {layout} it is {release.LAYOUT!r}")
    for name, value in (("colour-order", colour_order), ("embedding-dim", embedding_dim)):
        if value is not None:
            raise InputError(f"--{name}: is read off the file of layout {layout}; leave it out")
    if autoencoder is None or embedder is None:
        raise InputError(
            f"layout {layout}: give --autoencoder and --embedder, the recognizer that it was trained with; "
            f"{release.BRING}"
        )
    size = checkpoints.whole_number("input-size", input_size or release.IMAGE_SIZE)
    return release.convert(uri, autoencoder, embedder, licence, training_data, output, size)
