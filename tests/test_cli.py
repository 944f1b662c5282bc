import json
import subprocess
import sys
from pathlib import Path

import pytest

from synface import cli

ROOT = Path(__file__).parents[1]
VERBS = list(cli.STAGES)


def run(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", "synface.cli", *arguments], capture_output=True, text=True, cwd=cwd)


def last_json(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_and_configs_import_nothing_heavy(arguments):
    """So that help is instant."""
    code = (
        f"import sys; from synface import cli; cli.main({arguments!r}); "
        "heavy = {'torch','ray','pyarrow','numpy','diffusers','numba'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("--output" if arguments[1:] else "pipeline") in done.stdout


def test_unknown_verb_lists_the_known_ones():
    done = run("packk")
    assert done.returncode == 2 and "pack" in last_json(done)["error"]


def test_no_verb_is_a_usage_error():
    done = run()
    assert done.returncode == 2 and "usage" in done.stdout


def test_bad_field_is_refused_before_work(tmp_path):
    done = run("pack", "--output", str(tmp_path / "o"), "--num-identitees", "5")
    assert done.returncode == 2
    assert "did you mean 'num_identities'" in last_json(done)["error"]
    assert not (tmp_path / "o").exists()


def test_unknown_section_of_a_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text("packs: {}\n")
    done = run("pack", "--config", str(tmp_path / "r.yaml"))
    assert done.returncode == 2 and "did you mean 'pack'" in last_json(done)["error"]


def test_jobs_are_the_same_verbs():
    for verb in (
        "embed",
        "pack",
        "generate",
        "evaluate",
        "report",
        "pipeline",
        "audit",
        "sweep",
        "calibrate",
        "closed_loop",
    ):
        text = (ROOT / "jobs" / f"{verb}.py").read_text()
        assert f'main(["{verb}", *sys.argv[1:]])' in text and len(text.splitlines()) <= 30
    for task in ("generator", "autoencoder"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "train.py"), task, "--output", "o"],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.returncode == 2 and "images: required" in last_json(done)["error"]
