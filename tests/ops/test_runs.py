"""The run's id, and log lines."""

import json
import logging
import subprocess
import sys

import pytest

from synface.core.errors import InputError
from synface.ops import runs


@pytest.fixture
def known(monkeypatch):
    """What this process knows of its run, for a test to change."""
    facts = {"run": "tests-1", "form": "text"}
    monkeypatch.setattr(runs, "_known", facts)
    return facts


def test_a_line_of_text_begins_with_the_run_and_the_shard(known, capsys):
    runs.say("pack: continues")
    with runs.about(42):
        runs.say("generate: 3 failed")
        with runs.about("7"):
            assert runs.line("inner", "WARNING") == "[tests-1/7] WARNING inner"
        runs.say("again")
    runs.say("after", "ERROR")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "[tests-1] pack: continues",
        "[tests-1/42] generate: 3 failed",
        "[tests-1/42] again",
        "[tests-1] ERROR after",
    ]


def test_a_line_of_json_is_one_object(known):
    known["form"] = "json"
    with runs.about(3):
        text = runs.line('two\nlines "quoted" \u00e9', "WARNING", "ray.data")
    assert "\n" not in text and text.isascii()
    found = json.loads(text)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "WARNING",
        "logger": "ray.data",
        "run": "tests-1",
        "shard": "3",
        "message": 'two\nlines "quoted" \u00e9',
    }
    assert "shard" not in json.loads(runs.line("outside"))


def test_libraries_log_in_the_same_form(known):
    record = logging.LogRecord("numba", logging.WARNING, "f.py", 1, "cache %s", ("gone",), None)
    form = runs.Formatter("%(name)s: %(message)s")
    assert form.format(record) == "[tests-1] WARNING numba: cache gone"
    known["form"] = "json"
    assert json.loads(form.format(record))["logger"] == "numba"


def fresh(code, **environment):
    """A process that has not logged yet."""
    import os

    clean = {k: v for k, v in os.environ.items() if not k.startswith("SYNFACE_")}
    done = subprocess.run(
        [sys.executable, "-c", f"from synface.ops import runs; {code}"],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_each_process_has_its_own_id_unless_one_is_given():
    code = "print(runs.run_id(), runs.run_id())"
    first, again = fresh(code).split()
    assert first == again and len(first) == 8 and int(first, 16) >= 0
    assert fresh(code).split()[0] != first
    assert fresh(code, SYNFACE_RUN_ID="night-7").split() == ["night-7", "night-7"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (runs.RUN_VARIABLE, "a b"),
        (runs.RUN_VARIABLE, "x" * 65),
        (runs.RUN_VARIABLE, "\u00e9"),
        (runs.LOG_VARIABLE, "xml"),
    ],
)
def test_variables_that_cannot_be_used_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=name):
        runs.check_environment()


@pytest.mark.ray
def test_workers_have_the_drivers_id_and_form(ray_cluster):
    """Through Ray's store: the workers' environment is the cluster's, not the driver's."""
    import ray

    @ray.remote(num_cpus=0.1)
    def seen() -> str:
        with runs.about(5):
            return runs.line("x")

    assert ray.get(seen.remote()) == f"[{runs.run_id()}/5] x"
