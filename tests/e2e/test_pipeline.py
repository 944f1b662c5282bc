"""The house stands: every stage does real work on real input, through Ray, from one recipe."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synface import cli

ROOT = Path(__file__).parents[2]
SMOKE = str(ROOT / "jobs" / "configs" / "smoke.yaml")
sys.path.insert(0, str(Path(__file__).parent))
from tools import digests, end_group  # noqa: E402

SECTIONS = ["pool", "embed", "pack", "generate", "train_recognizer", "evaluate", "report"]


def numbers(result):
    """A result without its times."""
    drop = {"seconds", "cached"}
    return {name: {k: v for k, v in part.items() if k not in drop} for name, part in result["sections"].items()}


@pytest.fixture(scope="module")
def smoke(ray_cluster, tmp_path_factory):
    """One run of the smoke recipe, in this process on the session's cluster: (folder, result)."""
    output = tmp_path_factory.mktemp("smoke") / "run"
    return output, run_here(output)


def run_here(output, *overrides):
    capture = []
    original = cli._finish

    def spy(verb, result, code, place, seconds):
        capture.append({"exit_code": code, **result})
        original(verb, result, code, place, seconds)

    cli._finish = spy
    try:
        code = cli.main(["pipeline", "--config", SMOKE, "--output", str(output), *overrides])
    finally:
        cli._finish = original
    assert code == 0, capture
    return capture[-1]


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_every_section_leaves_its_artifact(smoke):
    output, result = smoke
    assert list(result["sections"]) == SECTIONS
    assert result["sections"]["pool"]["images"] == 16
    assert result["sections"]["pack"]["num_identities"] == 6
    assert result["sections"]["generate"]["images"] == 24
    assert 0.4 < result["sections"]["evaluate"]["average"]["all"] <= 1
    for folder in ("pool_images", "pool", "identities", "images", "recognizer", "evaluation", "report"):
        assert (output / folder / "_synface" / "manifest.json").exists()
    saved = json.loads((output / "_synface" / "result-pipeline.json").read_text())
    assert saved["exit_code"] == 0 and saved["verb"] == "pipeline"
    assert (output / "report" / "report.html").stat().st_size > 50_000


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_second_run_does_nothing_and_says_the_same(smoke):
    output, first = smoke
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file() and "result-" not in p.name}
    again = run_here(output)
    assert again["cached"] and numbers(again) == numbers(first)
    after = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file() and "result-" not in p.name}
    assert after == before


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_another_seed_on_the_same_output_is_refused(smoke, capsys):
    output, _ = smoke
    assert cli.main(["pipeline", "--config", SMOKE, "--output", str(output), "--seed", "1"]) == 2
    line = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert "holds the result of another configuration" in line["error"] and "seed" in line["error"]


def start(output, home, *overrides):
    env = {**os.environ, "HOME": str(home), "SYNFACE_CACHE": str(home / "cache")}
    command = [sys.executable, str(ROOT / "jobs" / "pipeline.py"), "--config", SMOKE, "--output", str(output)]
    return subprocess.Popen(
        [*command, *overrides],
        env=env,
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_anywhere_and_started_again_gives_the_same_bytes(tmp_path):
    """SIGKILL of the whole run soon after three of its sections begin, then the same command again.

    `benchmarks/chaos.py` kills single processes of every section, 20 times.
    """
    home = tmp_path / "home"
    home.mkdir()
    calm = start(tmp_path / "calm", home)
    text, _ = calm.communicate(timeout=600)
    assert calm.returncode == 0, text[-4000:]
    killed = 0
    for section in ("pool", "generate", "train_recognizer", None):
        process = start(tmp_path / "rough", home)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if section and f" {section} -> " in line:
                time.sleep({"train_recognizer": 14, "pool": 9}.get(section, 1.5))
                end_group(process)
                killed += 1
                break
        process.wait(600)
    assert killed == 3, "the run was over before it could be killed"
    assert process.returncode == 0, "".join(lines)[-4000:]
    assert digests(tmp_path / "rough") == digests(tmp_path / "calm")


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_how_fields_change_no_byte(smoke, tmp_path):
    """Every *how* field of the stages that write data, changed at once (training is held by its own test)."""
    output, _ = smoke
    result = run_here(
        tmp_path / "other",
        *("--pool.how.max_actors", "1", "--pool.how.cpus_per_actor", "0.5", "--pool.how.progress_seconds", "0.1"),
        *("--generate.how.max_actors", "1", "--generate.how.cpus_per_writer", "0.3", "--generate.how.rounds", "1"),
        *("--generate.how.restarts", "1", "--train_recognizer", "none", "--evaluate", "none", "--report", "none"),
    )
    assert list(result["sections"]) == ["pool", "embed", "pack", "generate"]
    mine, theirs = digests(tmp_path / "other"), digests(output)
    shared = {k for k in theirs if k.split("/")[1] in ("pool_images", "pool", "identities", "images")}
    assert shared and {k: theirs[k] for k in shared} == {k: mine.get(k) for k in shared}
