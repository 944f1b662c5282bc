"""A Ray that is short of memory on a machine that is not: its memory monitor kills workers early."""

from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory

#: Ray itself takes about 1.5 GiB; the rest is for what neighbours may take meanwhile
ROOM_BYTES = 6 << 30


def short_of_memory() -> dict[str, str]:
    """The environment of a Ray that kills workers once half of the free memory, or `ROOM_BYTES`, are taken.

    By the numbers that its monitor goes by, inside a container too. A neighbour that takes the room for itself has
    every worker killed for as long as it stays.
    """
    total, used = get_system_memory(), get_used_memory()
    room = min(ROOM_BYTES, (total - used) // 2)
    assert room > 2 << 30, "too little memory is free on this machine to run short of it on purpose"
    return {"RAY_memory_usage_threshold": f"{(used + room) / total:.5f}"}
