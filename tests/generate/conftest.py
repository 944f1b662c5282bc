"""Generation with the cheap generator of `pattern_generator.py`."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from generate_helpers import pattern_config


@pytest.fixture
def pattern():
    return pattern_config


@pytest.fixture(scope="session")
def scorer(tmp_path_factory):
    from scored import write_scorer

    return write_scorer(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="session")
def people(tmp_path_factory, scorer):
    from scored import write_people

    return write_people(tmp_path_factory.mktemp("people") / "ids", scorer)
