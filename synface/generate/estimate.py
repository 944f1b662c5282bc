"""What a run on GPUs would take: arithmetic for a dry run, marked as an estimate. Nothing here was measured."""

from typing import Any

#: teraflop per second of 16-bit matrix products with 32-bit sums, dense, as the vendor's data sheets give them
GPUS = {"T4": 65.0, "RTX 3090": 71.0, "L4": 121.0, "A100": 312.0, "H100": 989.0}
#: share of that which a diffusion network reaches: assumed. HyperFace's 0.98 s a picture on an RTX 3090 would be 0.61,
#: if Arc2Face's own steps and guidance were used
UTILISATION = 0.4
FORMULA = "images x teraflop_per_image / (GPU's dense 16-bit teraflop/s x {share}) / 3600"


def gpu_estimate(
    images: int, teraflop_per_image: float, network_gb: float, cost_per_hour: float | None = None
) -> dict[str, Any]:
    """GPU hours by type of GPU, images per second of one, and cost.

    Args:
        images: to be made.
        teraflop_per_image: counted from the network's layers (2 a multiply-add).
        network_gb: memory of the networks: numbers x bytes of each.
        cost_per_hour: of one GPU, in any unit.
    """
    rate = {name: speed * UTILISATION / teraflop_per_image for name, speed in GPUS.items()}
    hours = {name: images / r / 3600 for name, r in rate.items()}
    found: dict[str, Any] = {
        "is": "an estimate, not a measurement",
        "formula": FORMULA.format(share=UTILISATION),
        "teraflop_per_image": round(teraflop_per_image, 3),
        "images_per_second": {name: round(r, 3) for name, r in rate.items()},
        "memory_gb": f"{network_gb:.2f} for the networks (numbers x bytes); activations come on top, not estimated",
        "gpu_hours": {name: round(h, 2) for name, h in hours.items()},
    }
    if cost_per_hour is not None:
        found["cost"] = {name: round(h * cost_per_hour, 2) for name, h in hours.items()}
    return found
