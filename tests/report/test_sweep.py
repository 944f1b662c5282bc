"""The page of a sweep: its numbers, the published rows beside ours, what is missing."""

import csv
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from report_runs import commit, make_images, report_config

from synface.core.errors import InputError
from synface.core.statistics import summarize
from synface.flows import sweep_outcome as outcome
from synface.report import run as stage
from synface.report.curves import Panel, curve
from synface.report.data import read_sweep
from synface.report.published import PUBLISHED, tables_of
from synface.report.sweep import image_columns, short_names
from synface.store import artifact, tables

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))
from sweep_tools import planned

M = "generate.variation.m"
VALUES = [-0.5, 0.0, 0.8]


def accuracies(point, seed):
    frontal, pose = 0.7 + 0.05 * point + 0.01 * seed, 0.6 + 0.04 * point
    mean = (frontal + pose) / 2
    return {"all": mean, "heads-val": mean, "heads-val/frontal": frontal, "heads-val/pose": pose}


def make_sweep(folder, scored=None, **fields):
    """A sweep's tables, through the functions that write them; the last trial failed."""
    config, _, trials = planned(**fields)
    rows = []
    for t in trials:
        failed = t is trials[-1]
        state = (outcome.FAILED, {}) if failed else (outcome.DONE, accuracies(t.point, t.seed))
        short = {r.epochs: accuracies(2 - t.point, t.seed) for r in t.rungs[:-1]}
        test = {"all": 0.66, "heads-v1": 0.66} if t.point == 1 else {}
        similarity = {"asked": VALUES[t.point], "realised": 0.25 + 0.1 * t.point, "nearer_to_another": 0.04 * t.point}
        rows.append(outcome.Row(t, *state, short, test, similarity, "section generate: <broken>" if failed else ""))
    for place in {outcome.images_key(t) for t in trials}:
        make_images(folder / "shared" / place, identities=4, images=2, similarity=scored)
    paths = list(dict.fromkeys(path for t in trials for path in t.values))
    summaries = outcome.point_summaries(rows, "all")
    parts = {
        outcome.TRIALS_FILE: outcome.trials_table(rows, paths, "all"),
        outcome.POINTS_FILE: outcome.points_table(summaries, paths),
    }
    files = [artifact.write_file(str(folder), n, tables.parquet_bytes(t), t.num_rows) for n, t in parts.items()]
    numbers = {
        "points": 3, "trials": 9, "done": 8, "stopped": 0, "failed": 1, "metric": "all", "paths": paths,
        "best": outcome.shown(outcome.best(summaries)), "early_ranks": outcome.early_ranks(rows, "all"),
        "stages": {"generate": {"distinct": 3, "uses": 9}}, "store": "shared", "crossed": list(config.space),
        "real": next((t.point for t in trials if t.name == config.real), None),
    }  # fmt: skip
    return commit(folder, "sweep", files, numbers)


CEMIFACE = {"generate": {"generator": "cemiface", "cemiface": {"weights": "/nowhere"}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    sweep = make_sweep(
        root / "sweep", recipe=CEMIFACE, space={M: VALUES}, seeds=[0, 1, 2], rungs={"first": 2, "factor": 9}
    )
    result = stage.run(report_config(root / "page", sweep=sweep, title="m"))
    return root / "page", result, (root / "page" / "report.html").read_text()


def test_the_curve_holds_every_point_with_its_interval(made):
    output, result, _ = made
    assert result["sections"] == ["sweep", "similarity-asked", "sweep-samples", "early", "trials"]
    rows = list(csv.DictReader(io.StringIO((output / "figures/sweep.csv").read_text())))
    means = {(r["point"], r["accuracy of"]): r for r in rows}
    assert len(rows) == 3 * 3 + 3 * 3  # accuracies; what was asked, realised and mislabelled
    assert float(means["0.8", "realised"]["mean"]) == pytest.approx(0.45)
    frontal = summarize([accuracies(0, s)["heads-val/frontal"] for s in range(3)])
    row = means["-0.5", "heads-val/frontal"]
    assert (float(row["mean"]), float(row["low95"])) == pytest.approx((frontal.mean, frontal.low))
    assert means["0.8", "average"]["seeds"] == "2"  # one of its trials failed
    assert (output / "figures/sweep.png").stat().st_size > 10_000
    svg = (output / "figures/sweep.svg").read_text()
    assert "0.45" in svg and "8 %" in svg  # what m = 0.8 realised and mislabelled, at its tick


def test_samples_have_a_row_an_identity_and_a_column_a_point(made):
    output, _, text = made
    rows = list(csv.DictReader(io.StringIO((output / "figures/sweep-samples.csv").read_text())))
    assert len(rows) == 4 * 3 and {r["point"] for r in rows} == {"-0.5", "0", "0.8"}
    svg = (output / "figures/sweep-samples.svg").read_text()
    assert svg.count("<image") == 12 and "Samples by point" in text


def test_published_rows_stand_beside_ours(made):
    _, _, text = made
    assert "CemiFace, Table 11" in text
    assert re.search(r"<th scope=\"row\">0</th><td>70\.00</td><td>98\.10</td>.*<td>89\.57</td>", text)
    assert "an error in the paper" in text
    assert len(PUBLISHED[0].rows) == 21


def test_early_ranks_come_with_every_points_places(made):
    """Short trainings rank the three points the other way round; the failed trial counts on neither side."""
    _, _, text = made
    assert "Places after 2 epochs" in text
    part = text[text.index("Places after 2 epochs") :]
    for point, short, whole in ((0, 1, 3), (1, 2, 2), (2, 3, 1)):
        seeds = [s for s in range(3) if (point, s) != (2, 2)]
        means = [np.mean([accuracies(k, s)["all"] for s in seeds]) for k in (2 - point, point)]
        a, b = (f"{100 * mean:.2f}".replace(".", r"\.") for mean in means)
        row = rf"m {VALUES[point]:g}</th><td>{a}</td><td>{short}</td><td>{b}</td><td>{whole}</td>"
        assert re.search(row, part), row


@pytest.mark.parametrize("table", PUBLISHED, ids=lambda t: t.title)
def test_published_tables_are_whole(table):
    assert table.whole or {len(key) for key in table.rows} == {len(table.paths)}
    assert all(len(row) == len(table.columns) for row in table.rows.values()) and set(table.remarks) <= set(table.rows)
    for key, row in table.rows.items():
        if len(row) == 6:
            assert np.mean(row[:5]) == pytest.approx(row[5], abs=0.011), key


def test_published_rows_are_found_by_what_tables_of_a_sweep_hold():
    mixed = [0, 0.5, {"range": [0, 0.1]}, {"mixture": [{"fixed": 0}, {"fixed": 0.5}]}]
    points = [{M: v} for v in outcome.values_column(mixed).to_pylist()]
    curve_rows, generation = tables_of([M], [M], points)
    assert [curve_rows.rows.get(curve_rows.key(p), (None,))[-1] for p in points] == [89.567, 87.316, None, None]
    assert [generation.rows.get(generation.key(p)) for p in points] == [(91.64,), None, (91.11,), (90.36,)]
    paths = ["train_generator.m_interval", "train_generator.m_range"]
    (training,) = tables_of(paths, [], [{paths[0]: 0.04, paths[1]: "[-1,1]"}])
    assert training.rows[training.key({paths[0]: 0.04, paths[1]: "[-1,1]"})] == (92.30,)
    crossed = {"train_generator.weight": 0.1, M: 0.0}
    (weight,) = tables_of([*crossed], [], [crossed])  # published at m = 0 alone
    assert weight.rows[weight.key(crossed)] == weight.rows[weight.key({"train_generator.weight": 0.1})] == (91.29,)
    assert (
        weight.key({**crossed, M: 0.5}) not in weight.rows and tables_of([*crossed], [], [{**crossed, M: 0.5}]) == []
    )
    assert tables_of([*crossed, "pack.alpha"], [], [{**crossed, "pack.alpha": 1.0}]) == []
    found = tables_of(["pack", M], [M], [{"name": "class centre", M: 0.5}, {"name": "packed", M: 0.5}])
    assert [t.title[:18] for t in found] == ["CemiFace, Table 11", "CemiFace, Table 8 "]
    assert tables_of(["pack.alpha"], ["pack.alpha"], [{"pack.alpha": 1.0}]) == []
    assert tables_of([M], [M], [{M: 0.55}]) == []


def test_points_with_the_same_images_show_them_once(tmp_path):
    """A sweep of recognizers: one column, or one for each m; the best point's frame is at its images' column."""
    margin = "train_recognizer.margin.m"
    points = [{margin: 0.3}, {margin: 0.4}, {margin: 0.5}]
    sweep = make_sweep(tmp_path / "one", lambda i, k: 0.4, recipe=CEMIFACE, points=points, seeds=[0, 1, 2])
    stage.run(report_config(tmp_path / "page", sweep=sweep))
    text = (tmp_path / "page/report.html").read_text()
    assert {r["point"] for r in samples_csv(tmp_path / "page")} == {"all points"}
    assert text.count('<th scope="row">all points</th>') == 3 and "Boxed" not in text

    points = [{M: 0.5, margin: 0.3}, {M: 0.5, margin: 0.5}, {M: 0.2, margin: 0.3}]
    sweep = make_sweep(tmp_path / "two", recipe=CEMIFACE, points=points, seeds=[0, 1, 2])
    stage.run(report_config(tmp_path / "page-2", sweep=sweep))
    assert {r["point"] for r in samples_csv(tmp_path / "page-2")} == {
        "variation.m 0.5",
        "variation.m 0.2, margin.m 0.3",
    }
    text = (tmp_path / "page-2/report.html").read_text()
    assert re.search(r"variation\.m 0\.5</th><td>[\d.]+</td><td>highest accuracy", text)
    assert "One identity a column" in text  # two points of four people
    assert image_columns(read_sweep(sweep, 4), without=M) == {0: "margin.m 0.3 and margin.m 0.5", 2: "margin.m 0.3"}


def samples_csv(page):
    return list(csv.DictReader(io.StringIO((page / "figures/sweep-samples.csv").read_text())))


def test_what_is_missing_and_what_failed_is_said(made):
    _, result, text = made
    assert "&lt;broken&gt;" in text and "<broken>" not in text
    assert result["headline"]["of 9 trials"] == "8"
    assert result["headline"]["best point"] == "70.00 %"  # m = 0; the point with a failed trial may not win
    assert "-1.000" in text  # the short trainings rank the points the other way round


def test_points_that_are_no_numbers_are_labelled(tmp_path):
    points = [{"pack": None}, {"pack.num_identities": 3}, {"pack.num_identities": 2, "seed": 1}]
    sweep = make_sweep(tmp_path / "sweep", points=points, seeds=[0, 1, 2])
    stage.run(report_config(tmp_path / "page", sweep=sweep))
    text = (tmp_path / "page/report.html").read_text()
    assert "pack null" in text and "num_identities 2, seed 1" in text


def test_named_points_and_their_gap_to_real(tmp_path):
    values = ({"pack": None}, {"pack.num_identities": 3}, {"pack.num_identities": 2})
    points = [{"name": name, **given} for name, given in zip(("ours", "real", "others"), values, strict=True)]
    sweep = make_sweep(tmp_path / "sweep", points=points, seeds=[0, 1, 2], real="real")
    stage.run(report_config(tmp_path / "page", sweep=sweep))
    text = (tmp_path / "page/report.html").read_text()
    # ours 65.50, real 70.00: 4.50 points, 6.87 % of ours
    assert re.search(r'<th scope="row">ours</th><td>3</td><td>65\.50</td>.*<td>4\.50</td><td>6\.87</td>', text)
    assert re.search(
        r'<th scope="row">real</th><td>3</td><td>70\.00</td><td>.*?</td><td>\u2013</td><td>\u2013</td>', text
    )
    assert re.search(r'<th scope="row">SynFace</th><td>0\.5M</td>.*<td>74\.75</td><td>19\.51</td>', text)
    assert "num_identities" not in text.split('id="provenance"')[0]  # the names stand for the values


def test_named_points_by_m_have_a_panel_each(tmp_path):
    points = [{"name": "one picture"}, {"name": "random centre", "pack": None}, {"name": "packed", "seed": 1}]
    sweep = make_sweep(tmp_path / "sweep", recipe=CEMIFACE, points=points, space={M: [0.5]}, seeds=[0, 1, 2])
    stage.run(report_config(tmp_path / "page", sweep=sweep))
    svg = (tmp_path / "page/figures/sweep.svg").read_text()
    assert all(f">{title}<" in svg for title in ("one picture", "random centre", "packed", "average"))
    text = (tmp_path / "page/report.html").read_text()
    assert re.search(r'<th scope="row">one picture, m 0\.5</th><td>65\.50</td><td>97\.85</td>', text)  # Table 11
    rows = re.findall(r'<th scope="row">random centre, m 0\.5</th>', text)
    assert len(rows) >= 3 and "CemiFace, Table 8" not in text  # which has other m for these kinds


def test_the_cost_of_every_trial_stands_beside_it(tmp_path):
    sweep = make_sweep(tmp_path / "sweep", space={"pack.num_identities": [4, 3, 2]}, seeds=[0, 1, 2])
    lines = ["trial,point,values,seed,state,own_seconds,shared_seconds,gpu_hours,error"]
    lines += [f"{k},0,{{}},0,done,{k + 0.5},70.0,0.25," for k in range(9)]
    (tmp_path / "sweep" / outcome.COSTS_FILE).write_text("\n".join(lines) + "\n")
    stage.run(report_config(tmp_path / "page", sweep=sweep))
    text = (tmp_path / "page/report.html").read_text()
    assert "<td>3.5</td><td>70.0</td><td>0.25</td>" in text and "by its share (2.25 in all)" in text


def test_a_single_seed_has_a_point_and_no_interval():
    left = Panel("each benchmark", ["0", "1"], [0.0, 1.0], {"a": [(0.5, None, None), (0.6, 0.5, 0.7)]})
    figure = curve([left, Panel("average", ["0", "1"], [0.0, 1.0], {"b": [(0.5, None, None)] * 2})], "m")
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["each benchmark", "average"]


def test_another_artifact_is_refused(tmp_path):
    place = commit(tmp_path / "x", "images", [], {})
    with pytest.raises(InputError, match="holds 'images', expected 'sweep'"):
        stage.run(report_config(tmp_path / "page", sweep=place))


def test_named_mixtures_stand_beside_the_published_ones():
    mixed = '{"mixture":[{"fixed":0},{"fixed":0.5}]}'
    points = [{"name": "0", M: "0"}, {"name": "0 and 0.5", M: mixed}]
    found = tables_of([M], [], points)
    assert [t.title for t in found] == [t.title for t in tables_of([M], [], [{M: "0"}, {M: mixed}])] != []
    assert any(t.rows.get(t.key(points[1])) == (90.36,) for t in found)
    # points with names that a number crosses: the names count too
    assert not any(t.paths == (M,) for t in tables_of([M], ["pack.alpha"], points))


def test_paths_are_called_by_as_many_of_their_last_parts_as_tell_them_apart():
    paths = ["pool.domain", "generator_images.domain", "generate.variation.m", "margin.m", "generate.beta", "domain"]
    paths += ["train_recognizer.margin.name", "name"]
    assert list(short_names(paths).values()) == [
        "pool.domain", "generator_images.domain", "variation.m", "margin.m", "beta", "domain",
        "margin.name", "name",
    ]  # fmt: skip
