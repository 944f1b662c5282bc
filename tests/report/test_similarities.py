"""Similarity on a page: beside published rows, groups of images, samples in the plane."""

import csv
import importlib.util
import io
import json
import sys

import numpy as np
import pytest
import torch
from report_runs import commit, face, make_images, report_config

from synface.core.errors import InputError
from synface.evaluate.audit import BIN_EDGES, similarity_statistics
from synface.models import recognizers, weights
from synface.report import run as stage
from synface.report import similarities, space
from synface.report.published import SIMILARITY, SIMILARITY_GROUPS
from synface.store import artifact, tables
from tests.report.test_run import Page, browse, chromium
from tests.report.test_sweep import CEMIFACE, M, make_sweep


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_ours_stand_beside_the_published_similarities():
    rng = np.random.default_rng(0)
    cosine, label = rng.normal(0.25, 0.1, 300), np.repeat(np.arange(30), 10)
    table = similarities.inquiry_table({"ours": similarity_statistics(cosine, label)})
    ours, cemiface, dcface = table.rows
    means = cosine.reshape(30, 10).mean(1)
    assert ours[:3] == ("ours", f"{cosine.mean():.4f}", f"{cosine.std():.4f}")
    assert [int(c) for c in ours[3:]] == np.histogram(means, [-1, *BIN_EDGES, 1])[0].tolist()
    assert cemiface[1:5] == ("0.2854", "0.0776", "\u2013", "196") and dcface[-1] == "9"
    for row in SIMILARITY.values():  # what the bins' order was inferred from
        counts = np.array(list(row.identities_by_mean.values()))
        assert counts @ (np.arange(6) / 10 + 0.05) / counts.sum() == pytest.approx(row.mean, abs=0.025)
        assert counts.sum() == pytest.approx(10_000, abs=4)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """12 people x 10 images; image k has cosine (7 k mod 10) / 10 to the person's centre, and a little by person."""
    root = tmp_path_factory.mktemp("groups")
    images = make_images(root / "images", images=10)
    cosine = np.array([(7 * k % 10) / 10 + i / 500 for i in range(12) for k in range(10)])
    identity = [f"heads-real-{i}" for i in range(12) for _ in range(10)]
    entry = tables.write_similarities(str(root / "embedded"), identity, cosine, artifact.content_digest(images))
    return {"images": images, "similarities": commit(root / "embedded", "identities", [entry], {})}


def test_groups_of_images_are_shown_beside_the_papers(grouped, tmp_path):
    result = stage.run(report_config(tmp_path / "page", **grouped, grid_identities=3))
    assert result["sections"] == ["similarity-groups"]
    rows = read_csv(tmp_path / "page/figures/similarity-groups.csv")
    assert len(rows) == 3 * 5 * 2
    order = sorted(range(10), key=lambda k: -(7 * k % 10))  # nearest first
    mine = [(int(r["group"]), int(r["row"])) for r in rows if r["identity"] == "heads-real-1"]
    assert mine == [(g, 10 + order[2 * g + k]) for g in range(5) for k in range(2)]
    first = next(r for r in rows if r["row"] == str(10 + order[0]))
    assert first["image_sha256"] == artifact.sha256_hex(face(1, order[0]))
    assert float(first["cosine"]) == pytest.approx(0.902, abs=1e-6)
    svg = (tmp_path / "page/figures/similarity-groups.svg").read_text()
    assert svg.count("<image") == 30
    text = (tmp_path / "page/report.html").read_text()
    shift = np.arange(12).mean() / 500
    ours = "".join(f"<td>{v + shift:.3f}</td>" for v in (0.85, 0.9, 0.8))
    theirs = "".join(f"<td>{v:g}</td>" for v in SIMILARITY_GROUPS[0])
    assert f'<th scope="row">0</th><td>24</td>{ours}{theirs}' in text


def test_similarities_of_other_images_are_refused(grouped, tmp_path):
    other = make_images(tmp_path / "images", identities=2)
    with pytest.raises(InputError, match="those of other images"):
        stage.run(report_config(tmp_path / "page", images=other, similarities=grouped["similarities"]))
    with pytest.raises(InputError, match="give images too"):
        report_config(tmp_path / "page", similarities=grouped["similarities"])
    with pytest.raises(InputError, match="give sweep too"):
        report_config(tmp_path / "page", images=other, embedder="heads-fr-tiny")


def test_audits_and_scored_images_stand_in_one_table(tmp_path):
    images = make_images(tmp_path / "images", identities=3, images=4, similarity=lambda i, k: i / 10 + 0.05)
    numbers = {"similarity": {"to": "class centre", **similarity_statistics(np.full(4, 0.7), np.arange(4))}}
    audit = commit(tmp_path / "audit", "audit", [], numbers)
    result = stage.run(report_config(tmp_path / "page", images=images, audits=[{"name": "real <x>", "uri": audit}]))
    assert result["sections"] == ["inquiry"]
    text = (tmp_path / "page/report.html").read_text()
    run, other = "<td>0.1500</td><td>0.0816</td><td>0</td><td>1</td><td>1</td><td>1</td>", "real &lt;x&gt;"
    assert f'<th scope="row">this run</th>{run}' in text and "measure it to the class centre instead" in text
    assert f'<th scope="row">{other}</th><td>0.7000</td>' in text and "DCFace (CemiFace's Table 7)" in text.replace(
        "&#39;", "'"
    )
    assert artifact.require(audit).config_hash[:16] in text


def needs_sklearn(in_ci):
    if importlib.util.find_spec("sklearn") is None:
        (pytest.fail if in_ci else pytest.skip)('scikit-learn is not installed: pip install "synface[tsne]"')


def test_the_layout_keeps_clusters_and_is_the_same_again(in_ci):
    needs_sklearn(in_ci)
    rng = np.random.default_rng(1)
    label = np.repeat(np.arange(5), 20)
    x = rng.normal(size=(5, 32))[label] + 0.3 * rng.normal(size=(100, 32))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    place = space.tsne(x)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1) + 1e9 * np.eye(100)
    assert (label[distance.argmin(1)] == label).mean() == 1
    assert np.array_equal(space.tsne(x), place)
    assert space.tsne(x[:3]).tolist() == [[0, 0]] * 3


def test_without_scikit_learn_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    sweep = commit(tmp_path / "sweep", "sweep", [], {})
    config = report_config(tmp_path / "page", sweep=sweep, embedder="heads-fr-tiny")
    for verb in (stage.plan, stage.run):
        with pytest.raises(InputError, match=r'pip install "synface\[tsne\]"'):
            verb(config)


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory, in_ci):
    """A sweep over m and two kinds of inquiry, its samples laid out by a recognizer of random weights."""
    needs_sklearn(in_ci)
    root = tmp_path_factory.mktemp("space")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = recognizers.build("tiny", 16, 64).eval()
    stated = weights.WeightsConfig("tiny", 16, 64, "CC0-1.0", "none: random weights")
    weights.save_pretrained(str(root / "weights"), module, stated)
    points = [{M: 0.0, "generate.seed": 1}, {M: 0.5, "generate.seed": 1}, {M: 0.5, "generate.seed": 2}]
    sweep = make_sweep(root / "sweep", scored=lambda i, k: 0.1 * i, recipe=CEMIFACE, points=points, seeds=[0, 1, 2])
    result = stage.run(report_config(root / "page", sweep=sweep, embedder=str(root / "weights")))
    return root / "page", result


def test_samples_are_laid_out_by_source_and_by_m(sweep_page):
    output, result = sweep_page
    assert "sweep-space" in result["sections"]
    rows = read_csv(output / "figures/sweep-space.csv")
    assert len(rows) == 3 * 4 * 2
    assert {(r["source"], r["m"]) for r in rows} == {("seed 1", "0.0"), ("seed 1", "0.5"), ("seed 2", "0.5")}
    # the points' images are equal here: so are their places, up to the layout's repulsion of equal points
    assert all(np.isfinite([float(r["x"]), float(r["y"])]).all() for r in rows)
    text = (output / "report.html").read_text()
    assert "by source" in text and "by m" in text
    assert text.count("<td>0.1500</td>") == 3 and "CemiFace (its Table 7)" in text.replace("&#39;", "'")


@pytest.mark.slow
def test_a_real_browser_shows_the_sweeps_page(sweep_page, tmp_path, in_ci):
    output, result = sweep_page
    binary, page = chromium(in_ci), f"file://{output / 'report.html'}"
    seen = browse(binary, tmp_path / "profile", "--dump-dom", page)
    dom = Page(seen.stdout)
    assert "CONSOLE" not in seen.stderr and not dom.all("script")
    assert [s["id"] for s in dom.all("section")] == [*result["sections"], "provenance"]
    assert len(dom.all("svg")) == 3  # curve, samples, plane
    assert len([i for i in dom.all("image") if i["href"].startswith("data:image/png")]) >= 12
    assert json.loads((output / "_synface/manifest.json").read_text())["kind"] == "report"
