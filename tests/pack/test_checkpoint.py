import numpy as np
import pytest
import torch

from synface.core.errors import InputError, SynfaceError
from synface.ops.signals import StoppedError
from synface.pack import checkpoint, drive, run, solver, starts
from synface.pack.config import PackConfig
from synface.pack.drive import LocalCrew, Place
from synface.pack.exchange import PeerLostError, row_ranges
from synface.settings import build
from synface.store import artifact
from synface.store import uri as uris
from synface.store.schemas import embeddings
from synface.store.tables import read_identities


def state_of(n: int, d: int, passes: int = 7) -> solver.State:
    x_nd = torch.from_numpy(starts.random_start(n, d, 0))
    task = solver.Task(solver.default_schedule(d, 20))
    state = solver.begin(x_nd, task, solver.LocalExchange())
    solver.advance(state, task, solver.LocalExchange(), passes)
    state.neighbours_n = torch.arange(n)
    return state


def saved(output: str, state: solver.State, k: int) -> checkpoint.Checkpoint:
    parts = []
    for rows in row_ranges(len(state.x_nd), k):
        names = {name: getattr(state, name)[rows.start : rows.stop] for name in checkpoint.FIELDS}
        parts.append(checkpoint.save_part(output, solver.State(passes=state.passes, largest=0.0, **names), rows.start))
    found = checkpoint.Checkpoint("hash", state.passes, 0.9, state.largest, 1.5, tuple(parts))
    checkpoint.mark(output, found)
    return found


@pytest.mark.parametrize(("writers", "readers"), [(1, 3), (3, 1), (2, 5), (5, 2)])
def test_any_number_of_shards_reads_what_any_number_wrote(tmp_path, writers, readers):
    output, state = str(tmp_path), state_of(31, 6)
    written = saved(output, state, writers)
    found = checkpoint.latest(output, "hash", 31)
    assert found == written
    pieces = [checkpoint.read_rows(output, found, rows) for rows in row_ranges(31, readers)]
    for name in checkpoint.FIELDS:
        assert torch.equal(torch.cat([getattr(p, name) for p in pieces]), getattr(state, name))
    assert {(p.passes, p.largest, p.seconds) for p in pieces} == {(7, state.largest, 1.5)}


def test_only_the_newest_stays_and_none_after_the_end(tmp_path):
    output = str(tmp_path)
    saved(output, state_of(10, 4, 3), 2)
    saved(output, state_of(10, 4, 5), 3)
    assert len(uris.list_files(output)) == 3 + 1
    assert checkpoint.latest(output, "hash", 10).passes == 5
    checkpoint.remove(output)
    assert uris.list_files(output) == [] and checkpoint.latest(output, "hash", 10) is None


def test_of_another_configuration_or_size_does_not_count(tmp_path):
    saved(str(tmp_path), state_of(10, 4), 2)
    assert checkpoint.latest(str(tmp_path), "other", 10) is None
    assert checkpoint.latest(str(tmp_path), "hash", 11) is None


def test_parts_without_a_marker_do_not_exist(tmp_path):
    checkpoint.save_part(str(tmp_path), state_of(10, 4), 0)
    assert checkpoint.latest(str(tmp_path), "hash", 10) is None


def test_damage_is_found_and_named(tmp_path):
    output = str(tmp_path)
    found = saved(output, state_of(10, 4), 2)
    place = tmp_path / found.parts[1].path
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    checkpoint.read_rows(output, found, range(5))
    with pytest.raises(InputError, match=r"rows-000000005.*delete .*checkpoint.json to start anew"):
        checkpoint.read_rows(output, found, range(3, 10))
    (tmp_path / checkpoint.MARKER).write_text("{")
    with pytest.raises(InputError, match=r"checkpoint.json: damaged"):
        checkpoint.latest(output, "hash", 10)


class FlakyCrew(LocalCrew):
    """Loses its shards at the given passes, once each; counts what it computed."""

    def __init__(self, task, lost_at):
        super().__init__(task)
        self.lost_at, self.assembled, self.computed = set(lost_at), 0, 0

    def assemble(self):
        self.assembled += 1

    def advance(self, until):
        before = self.shard.state.passes
        for passes in sorted(self.lost_at):
            if before < passes <= until:
                self.lost_at.discard(passes)
                raise PeerLostError("a worker died")
        report = super().advance(until)
        self.computed += report.passes - before
        return report


def driven(crew, x_nd, place, **options):
    return drive.drive(crew, x_nd, 40, place, progress_seconds=1e9, **options)


class TestDrive:
    def task(self):
        return solver.Task(solver.default_schedule(16, 40))

    def start(self):
        return torch.from_numpy(starts.random_start(60, 16, 1))

    def test_lost_shards_are_replaced_and_the_end_is_the_same(self, tmp_path):
        x_nd = self.start()
        whole = solver.solve(x_nd, self.task().schedule)
        crew = FlakyCrew(self.task(), [3, 17, 39])
        found = driven(crew, x_nd, Place(str(tmp_path), "hash", 10))
        assert torch.equal(found.x_nd, whole.x_nd) and found.largest == whole.max_cosine
        assert (crew.assembled, found.replaced, found.passes, found.reason) == (4, 3, 40, "passes")
        assert crew.computed <= 40 + 3 * 10
        assert found.first == pytest.approx(solver.begin(x_nd, self.task(), solver.LocalExchange()).largest)

    def test_shards_that_are_lost_again_and_again_end_the_run(self, tmp_path):
        class Hopeless(FlakyCrew):
            def advance(self, until):
                raise PeerLostError("a worker died")

        with pytest.raises(SynfaceError, match=r"lost 3 times.*continues from the last checkpoint"):
            driven(Hopeless(self.task(), []), self.start(), Place(str(tmp_path), "hash", 10), restarts=2)

    def test_measuring_survives_a_loss(self):
        class Once(LocalCrew):
            left = 1

            def nearest(self, x_nd, others_md=None):
                self.left -= 1
                if self.left >= 0:
                    raise PeerLostError("a worker died")
                return super().nearest(x_nd, others_md)

        assert drive.measure(Once(self.task()), self.start()).shape == (60,)

    def test_a_stop_signal_leaves_a_checkpoint(self, tmp_path, monkeypatch):
        x_nd, place = self.start(), Place(str(tmp_path), "hash", 1000)
        monkeypatch.setattr(drive, "stop_requested", lambda: True)

        def stop():
            raise StoppedError("stopped")

        monkeypatch.setattr(drive, "check_stop", stop)
        with pytest.raises(StoppedError):
            driven(LocalCrew(self.task()), x_nd, place)
        monkeypatch.undo()
        passes = checkpoint.latest(place.output, "hash", 60).passes
        found = driven(LocalCrew(self.task()), x_nd, place)
        assert found.resumed_at == passes > 0
        assert torch.equal(found.x_nd, solver.solve(x_nd, self.task().schedule).x_nd)


def test_a_killed_command_continues_to_the_same_bytes(tmp_path, monkeypatch):
    fields = {"num_identities": 70, "dim": 16, "passes": 60, "numerics": {"threads": 1}}
    how = {"checkpoint_passes": 10, "progress_seconds": 1e-9}
    whole = run.run(build(PackConfig, {**fields, "output": str(tmp_path / "whole")}))
    broken = build(PackConfig, {**fields, "output": str(tmp_path / "broken"), "how": how})
    advance = solver.advance

    def killed(state, task, shards, until, on_pass=None):
        if until > 34:
            raise KeyboardInterrupt
        return advance(state, task, shards, until, on_pass)

    monkeypatch.setattr(solver, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        run.run(broken)
    monkeypatch.undo()
    again = run.run(broken)
    assert again["work"]["resumed_at_pass"] == 30
    assert again["max_cosine"] == whole["max_cosine"] and again["passes"] == 60
    first, second = (artifact.require(r["uri"]) for r in (whole, again))
    assert first == second
    made = [embeddings(read_identities(r["uri"])) for r in (whole, again)]
    assert np.array_equal(*made)
    assert not [p for p, _ in uris.list_files(again["uri"]) if "checkpoint" in p]
