"""Makes the modules beside it importable by their plain names: here, and in the Ray processes that tests start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
