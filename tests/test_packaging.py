import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_both_lists_of_development_tools_agree():
    """pip older than 25.1 cannot read dependency groups, so `make` installs from a plain list."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = {one for one in groups["dev"] if isinstance(one, str)}
    for group in (one["include-group"] for one in groups["dev"] if isinstance(one, dict)):
        wanted |= set(groups[group])
    lines = (ROOT / "tools" / "dev-requirements.txt").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == wanted
