"""One process of a small OpenStack Swift, run by the Python of Swift's own venv (see `s3_server.py`).

python swift_node.py rings FOLDER account container object     # write the rings; three port numbers
python swift_node.py account|container|object|proxy FOLDER     # serve in the foreground
"""

import importlib
import sys
from pathlib import Path


def rings(folder: Path, ports: list[int]) -> None:
    from swift.common.ring import RingBuilder

    for kind, port in zip(("account", "container", "object"), ports):  # noqa: B905 (runs on any Python)
        builder = RingBuilder(6, 1, 0)
        builder.add_dev(
            {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "disk", "weight": 1.0,
             "replication_ip": "127.0.0.1", "replication_port": port}
        )  # fmt: skip
        builder.rebalance(seed="1")
        builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


def serve(role: str, folder: Path) -> None:
    module = "swift.obj.server" if role == "object" else f"swift.{role}.server"
    sys.argv = [f"swift-{role}-server", str(folder / f"{role}.conf"), "-v"]
    importlib.import_module(module).main()


if __name__ == "__main__":
    command, place = sys.argv[1], Path(sys.argv[2])
    # Swift reads /etc/swift/swift.conf at import unless told another folder first
    importlib.import_module("swift.common.utils").set_swift_dir(str(place))
    if command == "rings":
        rings(place, [int(p) for p in sys.argv[3:]])
    else:
        serve(command, place)
