import pytest

from synface.core.errors import InputError
from synface.evaluate import catalog
from synface.evaluate.config import EvaluateConfig
from synface.settings import build


def test_names():
    assert catalog.parse("heads-v1") == catalog.Spec("heads-v1", catalog.PROTOCOLS)
    assert catalog.parse("heads-val/pose") == catalog.Spec("heads-val", ("pose",))
    assert catalog.parse("/data/own.bin") == catalog.Spec("own", ("verification",), "/data/own.bin")
    assert catalog.parse("s3://bucket/x/lfw.bin").name == "lfw"


def test_usual_packs_are_looked_for_in_the_data_folder(monkeypatch):
    monkeypatch.setenv("SYNFACE_DATA", "/somewhere")
    assert catalog.parse("lfw").uri == "/somewhere/bin/lfw.bin"


def test_protocols_of_one_benchmark_are_joined_in_order():
    (spec,) = catalog.parse_all(("heads-v1/pose", "heads-v1/frontal"))
    assert spec.protocols == ("frontal", "pose")


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        (["heads-v7"], "unknown benchmark 'heads-v7'; known: .*heads-v1"),
        (["heads-v1/posed"], "unknown protocol of heads-v1 'posed'; known: age, frontal"),
        (["lfw/frontal"], "unknown benchmark 'lfw/frontal'"),
        ([], "give at least one"),
        (["a/x.bin", "b/x.bin"], "'x' is given twice"),
        (["heads-v1", "heads-v1/pose"], "'heads-v1' is given twice"),
        (["heads-v1/pose", "heads-v1/pose"], "'heads-v1' is given twice"),
    ],
)
def test_bad_names_are_refused_by_the_configuration(benchmarks, message):
    with pytest.raises(InputError, match=message):
        build(EvaluateConfig, {"output": "o", "weights": "w", "benchmarks": benchmarks})


@pytest.mark.parametrize("far", [[0.0], [1.0], [], [0.1, 0.1]])
def test_bad_rates(far):
    with pytest.raises(InputError, match=r"far .*distinct rates between 0 and 1"):
        build(EvaluateConfig, {"output": "o", "weights": "w", "far": far})


def test_a_comma_list_from_the_command_line():
    config = build(EvaluateConfig, {"output": "o", "weights": "w", "far": "0.1,0.01", "benchmarks": "heads-v1,lfw"})
    assert config.far == (0.1, 0.01)
    assert config.benchmarks == ("heads-v1", "lfw")
