"""A whole run to report on."""

import pytest
from report_runs import HOSTILE, make_evaluation, make_identities, make_images, make_recognizer


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """URIs of a whole run's artifacts; the first identity's name is hostile."""
    root = tmp_path_factory.mktemp("run")
    names = [HOSTILE, *(f"heads-real-{i}" for i in range(1, 12))]
    return {
        "pool": make_identities(root / "pool", 300, 1),
        "pack": make_identities(root / "pack", 100, 2, num_identities=100),
        "images": make_images(root / "images", names=names),
        "recognizer": make_recognizer(root / "recognizer"),
        "evaluation": make_evaluation(root / "evaluation"),
    }
