"""What happens to a finished shard. A module of its own, so that its processes load neither torch nor a generator."""

import json
import traceback
from typing import Any

from synface.core.errors import InputError, SynfaceError
from synface.ops import runs
from synface.store import ledger


class ShardWriter:
    """Writes finished shards.

    An actor, because it stays: Ray ends a task's process a second after its last task when a node has more processes
    than CPUs, so that nearly every shard would pay for starting Python anew (docs/storage.md has what that cost).
    """

    def __init__(self, output: str, versions: dict[str, str]):
        self.output, self.versions = output, versions

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """As `write_row`."""
        return write_row(row, self.output, self.versions)


def write_row(row: dict[str, Any], output: str, versions: dict[str, str]) -> dict[str, Any]:
    """Write a finished shard and its ledger entry.

    Returns:
        shard, rows; lost: images left out, failed: those of them that may be tried again; first_failure; fault,
        refused (by the output).
    """
    failed = json.loads(row["failed"])
    counts = {"lost": len(failed), "failed": len(ledger.to_try_again(failed))}
    answer = {"shard": row["shard"], "rows": row["rows"], **counts, "first_failure": "", "refused": False}
    if failed:
        first = failed[0]
        answer["first_failure"] = f"{first['identity_id']}, sample {first['sample']}: {first['error']}"
    if not row["fault"]:
        try:
            shard, data = int(row["shard"]), row["parquet"]
            ledger.write_shard(
                output, shard, data, int(row["rows"]), row["config_hash"], failed, versions, runs.run_id()
            )
        except SynfaceError as error:
            return answer | {"fault": str(error), "refused": isinstance(error, InputError)}
        except Exception as error:
            return answer | {"fault": describe(f"writing shard {row['shard']}", error)}
    return answer | {"fault": row["fault"]}


def describe(what: str, error: Exception) -> str:
    """One line for the user, and where it happened for whoever mends the code."""
    if isinstance(error, SynfaceError):
        return f"{what}: {error}"
    frames = "".join(traceback.format_exception(error)[-3:]).rstrip()
    return f"{what}: {type(error).__name__}: {error}\n{frames}"
