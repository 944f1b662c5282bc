"""TensorBoard event files of a training, on any URI."""

import tempfile
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter

from synface.store import uri as uris

FOLDER = "_synface/tensorboard"


class TensorBoard:
    """Writes scalars below ``<output>/_synface/tensorboard``; remote outputs get the files at the end.

    Args:
        output: of the verb.
        first_step: points from here on replace those of an interrupted run.
        enabled: whether this worker writes.
    """

    def __init__(self, output: str, first_step: int, enabled: bool = True):
        self._writer: SummaryWriter | None = None
        self._remote = uris.join(output, FOLDER)
        if enabled:
            folder = uris.absolute(self._remote) if uris.is_local(output) else tempfile.mkdtemp(prefix="synface-")
            self._folder = Path(folder)
            self._writer = SummaryWriter(folder, purge_step=first_step, flush_secs=10)

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Points of several curves at one step."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.close()
        if not uris.is_local(self._remote):
            for path in self._folder.iterdir():
                uris.write_bytes(uris.join(self._remote, path.name), path.read_bytes())
