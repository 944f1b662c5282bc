"""A Ray that is short of memory on a machine that is not: its memory monitor kills workers early."""

from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory


def short_of_memory(room: int = 3 << 30) -> dict[str, str]:
    """The environment of a Ray that kills workers once `room` more bytes of the machine are taken; itself takes half.

    Both numbers are those that its monitor goes by, inside a container too.
    """
    total = get_system_memory()
    share = (get_used_memory() + room) / total
    assert share < 0.95, "too little memory is free on this machine to run short of it on purpose"
    return {"RAY_memory_usage_threshold": f"{share:.5f}"}
