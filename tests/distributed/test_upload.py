"""What `ray job submit --working-dir .` sends: small, and everything that a job needs."""

import zipfile
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 40 << 20


def test_the_upload_is_small_and_whole(tmp_path):
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    names = set(zipfile.ZipFile(package).namelist())
    folders = {name.split("/", 1)[0] for name in names if "/" in name}
    assert package.stat().st_size < LIMIT_BYTES
    assert folders == {"jobs", "synface"}
    wanted = [p for folder in ("jobs", "synface") for p in (ROOT / folder).rglob("*.py")]
    assert {str(p.relative_to(ROOT)) for p in wanted} <= names
    assert "jobs/configs/quickstart.yaml" in names
    assert not [n for n in names if n.endswith((".pyc", ".nbi", ".nbc"))]
