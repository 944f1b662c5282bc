"""Generation with the cheap generator of `pattern_generator.py`."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from generate_helpers import pattern_config


@pytest.fixture
def pattern():
    return pattern_config
