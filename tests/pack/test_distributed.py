"""Shards in Ray actors. What the exchange computes is tested in `test_exchange.py`, without Ray."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from synface.core.errors import InputError
from synface.pack import distributed, drive, energy, run, solver, starts
from synface.pack.config import PackConfig
from synface.pack.drive import Place
from synface.settings import build, hashed_fields
from synface.store import uri as uris
from synface.store.schemas import embeddings
from synface.store.tables import read_identities

FIELDS = {"num_identities": 240, "dim": 32, "passes": 60, "numerics": {"threads": 1}}


def config(tmp_path, workers: int, how: dict | None = None, **fields) -> PackConfig:
    name = f"workers-{workers}"
    how = {"workers": workers, "cpus_per_worker": 0.5, **(how or {})}
    return build(PackConfig, {"output": str(tmp_path / name), **FIELDS, **fields, "how": how})


def test_workers_do_not_name_the_result(tmp_path):
    one, many = config(tmp_path, 1), config(tmp_path, 5, {"checkpoint_passes": 3, "exchange_timeout": 9})
    assert hashed_fields(one, {}) == hashed_fields(many, {})


class TestBadInput:
    def test_more_workers_than_points(self, tmp_path):
        with pytest.raises(InputError, match=r"how.workers = 11: 10 points.*at most one worker a point"):
            run.run(config(tmp_path, 11, num_identities=10))

    def test_of_a_solver_that_has_none(self, tmp_path):
        with pytest.raises(InputError, match=r"how.workers > 1 is for lse"):
            config(tmp_path, 2, solver="row_max")

    def test_no_gpu_here(self, tmp_path):
        if torch.cuda.is_available():
            pytest.skip("a GPU is here")
        with pytest.raises(InputError, match=r"no GPU is visible"):
            run.run(config(tmp_path, 1, numerics={"device": "cuda"}))


@pytest.mark.ray
class TestCluster:
    def test_more_than_the_cluster_has(self, tmp_path, ray_cluster, monkeypatch):
        impatient = functools.partial(distributed.demand.check_demand, patience=0.1)
        monkeypatch.setattr(distributed.demand, "check_demand", impatient)
        with pytest.raises(InputError, match=r"pack: how.workers = 3: the cluster cannot satisfy 3 x"):
            run.run(config(tmp_path, 3, {"cpus_per_worker": 64}))

    @pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
    def test_ends_like_one_process(self, tmp_path, ray_cluster, workers):
        one, many = run.run(config(tmp_path, 1)), run.run(config(tmp_path, workers))
        assert many["workers"] == workers and one["workers"] == 1
        assert many["max_cosine"] == pytest.approx(one["max_cosine"], abs=5e-4)
        x_nd = torch.from_numpy(embeddings(read_identities(many["uri"])))
        assert many["max_cosine"] == pytest.approx(energy.max_cosine(x_nd), abs=1e-6)
        nearest_n = read_identities(many["uri"])["nearest_cosine"].to_numpy()
        np.testing.assert_allclose(nearest_n, energy.nearest_cosines(x_nd)[0], atol=1e-6)
        work, planned = many["work"], run.plan(config(tmp_path, workers))
        assert work["flops_per_worker_pass"] == planned["flops_per_worker_pass"]
        # rows and nearest cosines of the first measure, and of each pass the rows and pulls
        assert (
            planned["bytes_per_worker_pass"]
            <= work["bytes_per_worker_pass"]
            <= 1.02 * planned["bytes_per_worker_pass"]
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("how_near", [{"tau_lo": 0.2}, {"subspace": 0.9}], ids=["band", "subspace"])
    def test_a_pass_differs_by_rounding_only_with_gallery_and_kept_rows(self, tmp_path, ray_cluster, how_near):
        gallery = run.run(config(tmp_path / "g", 1, passes=5))["uri"]
        kept = run.run(config(tmp_path / "k", 1, passes=5, num_identities=30, seed=8))["uri"]
        fields = {"gallery": gallery, "keep": kept, "passes": 1, "initial": "random", **how_near}
        one, many = (run.run(config(tmp_path, k, **fields)) for k in (1, 2))
        first, second = (embeddings(read_identities(r["uri"])) for r in (one, many))
        np.testing.assert_allclose(first, second, atol=1e-6, rtol=0)
        assert many["gallery_distance"] == pytest.approx(one["gallery_distance"], abs=1e-6)

    @pytest.mark.slow
    def test_a_checkpoint_of_three_continues_on_two_and_on_one(self, tmp_path, ray_cluster):
        asked = config(tmp_path, 3)
        x_nd = torch.from_numpy(starts.random_start(240, 32, 0))
        task = solver.Task(solver.default_schedule(32, 60))
        whole = solver.solve(x_nd, task.schedule)
        for workers in (2, 1):
            place = Place(str(tmp_path / f"from-3-on-{workers}"), "hash", 20)

            class KilledError(Exception):
                pass

            crew = distributed.RayCrew(asked, task, 240)
            advance = crew.advance

            def stopping(until, advance=advance, killed=KilledError):
                if until > 20:
                    raise killed
                return advance(until)

            crew.advance = stopping
            with pytest.raises(KilledError):
                drive.drive(crew, x_nd, 60, place)
            crew.close()
            fresh = distributed.RayCrew(config(tmp_path, 2), task, 240) if workers == 2 else drive.LocalCrew(task)
            found = drive.drive(fresh, x_nd, 60, place)
            fresh.close()
            assert found.resumed_at == 20 and found.passes == 60
            assert found.largest == pytest.approx(whole.max_cosine, abs=5e-4)


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_worker_is_replaced(tmp_path, ray_cluster):
    x_nd = torch.from_numpy(starts.random_start(240, 32, 0))
    task = solver.Task(solver.default_schedule(32, 60))
    whole = solver.solve(x_nd, task.schedule)
    crew = distributed.RayCrew(config(tmp_path, 3), task, 240)
    advance, killed = crew.advance, []

    def murderous(until):
        if until > 35 and not killed:
            killed.append(crew.processes()[1])
            order = [a.advance.remote(until + 10_000) for a in crew.actors]
            os.kill(killed[0], signal.SIGKILL)
            return distributed.busiest(distributed.together(order))
        return advance(until)

    crew.advance = murderous
    found = drive.drive(crew, x_nd, 60, Place(str(tmp_path / "out"), "hash", 10), progress_seconds=1e-9)
    processes = crew.processes()
    crew.close()
    assert killed and killed[0] not in processes and found.replaced == 1
    assert found.passes == 60 and found.resumed_at == 30
    assert found.largest == pytest.approx(whole.max_cosine, abs=5e-4)


@pytest.mark.slow
def test_a_killed_driver_continues_on_another_number_of_workers(tmp_path):
    """The whole command in its own process and cluster, SIGKILLed after a checkpoint."""
    output = str(tmp_path / "out")
    flags = ["--num-identities", "600", "--dim", "64", "--passes", "400", "--numerics.threads", "1"]
    flags += ["--initial", "random", "--output", output, "--how.checkpoint-passes", "20"]
    flags += ["--how.cpus-per-worker", "0.25", "--how.progress-seconds", "0.1"]
    command = [sys.executable, "-m", "synface.cli", "pack", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    first = subprocess.Popen([*command, "--how.workers", "3"], stderr=subprocess.DEVNULL, env=environment)
    try:
        deadline = time.monotonic() + 120
        marker_at = uris.join(output, "_synface/checkpoint.json")
        while not uris.exists(marker_at) and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert first.poll() is None, "the run ended before it could be killed"
    finally:
        first.kill()
        first.wait()
    marker = json.loads(uris.read_bytes(marker_at))
    second = subprocess.run(
        [*command, "--how.workers", "2"], capture_output=True, text=True, env=environment, timeout=200
    )
    line = json.loads(second.stdout.splitlines()[-1])
    assert line["exit_code"] == 0, second.stderr
    assert line["work"]["resumed_at_pass"] >= marker["passes"] > 0
    whole = run.run(
        build(
            PackConfig,
            {"num_identities": 600, "dim": 64, "passes": 400, "initial": "random", "output": str(tmp_path / "whole")}
            | {"numerics": {"threads": 1}},
        )
    )
    assert line["max_cosine"] == pytest.approx(whole["max_cosine"], abs=5e-4)
    assert line["workers"] == 2
