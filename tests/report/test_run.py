"""The page: what it shows, that it is escaped and needs nothing from outside."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import HOSTILE, commit, make_evaluation, make_images, make_recognizer, report_config

from synface.core.errors import InputError
from synface.report import run as stage
from synface.store import artifact


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def made(whole_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "out"
    result = stage.run(report_config(output, title="A <run> & more", **whole_run))
    return output, result, (output / "report.html").read_text()


def test_sections_tables_and_numbers(made, whole_run):
    _, result, text = made
    page = Page(text)
    assert result["sections"] == ["results", "packing", "training", "similarity", "groups"]
    assert [a["id"] for a in page.all("section")] == ["samples", *result["sections"], "provenance"]
    for anchor in (a["href"] for a in page.all("a") if a["href"].startswith("#")):
        assert any(anchor == "#" + s["id"] for s in page.all("section"))
    content = json.loads(Path(whole_run["evaluation"], "results.json").read_text())
    words = " ".join(page.text)
    for row in content["results"]["heads-v1"].values():
        assert f"{100 * row['accuracy']:.2f}" in words
        assert f"{row['auc']:.4f}" in words
    for uri in whole_run.values():
        assert artifact.require(uri).config_hash[:16] in words
    assert "CC0-1.0" in words
    assert "efefefefefefefef" in words  # weights sha256


def test_images_are_the_stored_bytes_with_alternative_texts(made):
    _, _, text = made
    images = Page(text).all("img")
    assert len(images) == 10 * 10
    assert all("synthetic face: identity" in i["alt"] for i in images)
    kind, data = images[11]["src"].split(";base64,")
    assert kind == "data:image/jpeg"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (64, 64)


def test_names_are_escaped(made):
    _, _, text = made
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert not Page(text).all("script")
    assert "<title>A &lt;run&gt; &amp; more</title>" in text


def test_nothing_from_outside(made):
    _, _, text = made
    page = Page(text)
    links = [a[k] for _, a in page.tags for k in ("src", "href", "xlink:href", "srcset", "poster", "data") if k in a]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert "@import" not in text
    for svg in (a for a in page.all("svg")):
        assert svg["role"] == "img"
        assert svg["aria-label"]


def test_every_figure_has_its_files_and_csv(made, whole_run):
    output, _, text = made
    names = [a["id"].removeprefix("figure-") for a in Page(text).all("figure")]
    assert names == ["accuracy", "roc", "packing", "training", "similarity", "slices"]
    for name in names:
        for suffix in ("png", "svg", "csv"):
            assert (output / f"figures/{name}.{suffix}").stat().st_size > 100
    with open(output / "figures/accuracy.csv") as stream:
        rows = {r["protocol"]: float(r["accuracy"]) for r in csv.DictReader(stream)}
    content = json.loads(Path(whole_run["evaluation"], "results.json").read_text())
    assert rows == {p: r["accuracy"] for p, r in content["results"]["heads-v1"].items()}
    listed = {f.path for f in artifact.require(str(output), "report").files}
    assert {"report.html", "figures/roc.csv"} <= listed


def test_again_is_the_same_and_cached(made, whole_run, tmp_path):
    output, result, text = made
    again = stage.run(report_config(output, title="A <run> & more", **whole_run))
    assert again["cached"]
    assert again["headline"] == result["headline"]
    stage.run(report_config(tmp_path / "o", title="A <run> & more", **whole_run))
    assert (tmp_path / "o/report.html").read_text() == text


def test_parts_alone(whole_run, tmp_path):
    for part, sections in (("images", []), ("pack", ["packing"]), ("recognizer", ["training"])):
        result = stage.run(report_config(tmp_path / part, **{part: whole_run[part]}))
        assert result["sections"] == sections
    plain = make_evaluation(tmp_path / "evaluation", groups=False)
    result = stage.run(report_config(tmp_path / "plain", evaluation=plain))
    assert result["sections"] == ["results", "similarity"]


def test_several_recognizers_side_by_side(whole_run, tmp_path):
    other = make_evaluation(tmp_path / "evaluation", scale=1.2, seed=1)
    second = make_recognizer(tmp_path / "recognizer", epochs=5, name="r18")
    fields = {
        "evaluations": [{"name": "random identities", "uri": other}],
        "recognizers": [{"name": "random identities", "uri": second}],
    }
    both = {k: whole_run[k] for k in ("evaluation", "recognizer")}
    result = stage.run(report_config(tmp_path / "o", **both, **fields))
    text = (tmp_path / "o/report.html").read_text()
    assert "random identities" in text
    assert "similarity-1" in text
    with open(tmp_path / "o/figures/training.csv") as stream:
        assert {r["recognizer"] for r in csv.DictReader(stream)} == {"this run", "random identities"}
    assert result["sections"] == ["results", "training", "similarity", "groups"]


def test_bad_input(whole_run, tmp_path):
    with pytest.raises(InputError, match="nothing to report"):
        report_config(tmp_path / "o")
    with pytest.raises(InputError, match="names must differ"):
        report_config(tmp_path / "o", evaluations=[{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}])
    with pytest.raises(InputError, match="nothing stands there"):
        stage.run(report_config(tmp_path / "o", images=str(tmp_path / "none")))
    with pytest.raises(InputError, match="holds 'images', expected 'evaluation'"):
        stage.run(report_config(tmp_path / "o2", evaluation=whole_run["images"]))
    copy = tmp_path / "copy"
    shutil.copytree(whole_run["evaluation"], copy)
    (copy / "results.json").write_text("{}")
    with pytest.raises(InputError, match="bytes differ from the manifest"):
        stage.run(report_config(tmp_path / "o3", evaluation=str(copy)))
    empty = commit(tmp_path / "empty", "evaluation", [], {})
    with pytest.raises(InputError, match=r"has no results\.json; evaluate again"):
        stage.run(report_config(tmp_path / "o4", evaluation=empty))
    for name in ("o", "o2", "o3", "o4"):
        assert not (tmp_path / name / "report.html").exists()


def test_plan(whole_run, tmp_path):
    plan = stage.plan(report_config(tmp_path / "o", **whole_run))
    assert plan["estimate"]["store"]["bytes_read"] > plan["estimate"]["store"]["get"] > len(plan["inputs"]) - 1
    assert plan["inputs"]["pool"] == "identities"
    assert not (tmp_path / "o").exists()


def chromium(in_ci):
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if in_ci:
            pytest.fail("chromium is missing: apt-get install -y chromium")
        pytest.skip("chromium is not installed")
    return found


def browse(binary, profile, *arguments):
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    base = [binary, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet, "--hide-scrollbars"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--user-data-dir={profile}"]
    return subprocess.run([*base, *offline, *arguments], capture_output=True, text=True, timeout=240, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_real_browser_shows_the_page(made, tmp_path, in_ci, theme):
    output, _, _ = made
    binary = chromium(in_ci)
    shot = tmp_path / "shot.png"
    dark = (
        ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else ["--blink-settings=preferredColorScheme=1"]
    )
    page = f"file://{output / 'report.html'}"
    seen = browse(binary, tmp_path / "profile", f"--screenshot={shot}", "--window-size=1280,5000", *dark, page)
    assert "CONSOLE" not in seen.stderr
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    background = pixels[5, 5]
    assert (background.mean() > 200) == (theme == "light")
    faces = pixels[400:1300, 350:1150]
    assert len(np.unique(faces.reshape(-1, 3), axis=0)) > 5000  # photographs, not boxes
    for colour in (np.array([47, 127, 193]), np.array([224, 122, 47])):  # the curves of the figures
        assert (np.abs(pixels - colour).sum(2) < 12).sum() > 500
    assert pixels.shape == (5000, 1280, 3)


@pytest.mark.slow
def test_the_browsers_own_reading_of_the_page(made, tmp_path, in_ci):
    output, _, _ = made
    binary = chromium(in_ci)
    page = f"file://{output / 'report.html'}"
    dom = Page(browse(binary, tmp_path / "profile", "--dump-dom", page).stdout)
    assert len(dom.all("img")) == 100
    assert len(dom.all("svg")) == 6
    assert not dom.all("script")
    pdf = tmp_path / "page.pdf"
    browse(binary, tmp_path / "profile2", f"--print-to-pdf={pdf}", page)
    assert pdf.read_bytes()[:5] == b"%PDF-"


def test_webp_and_png_images_are_named_as_what_they_are(tmp_path):
    def picture(kind):
        def make(i, k):
            out = io.BytesIO()
            Image.new("RGB", (8, 8), (i, k, 0)).save(out, kind)
            return out.getvalue()

        return make

    for kind in ("PNG", "WEBP"):
        uri = make_images(tmp_path / kind, identities=2, images=3, picture=picture(kind))
        stage.run(report_config(tmp_path / f"r{kind}", images=uri, grid_identities=1, grid_images=2))
        images = Page((tmp_path / f"r{kind}/report.html").read_text()).all("img")
        assert len(images) == 2
        assert all(i["src"].startswith(f"data:image/{kind.lower()};") for i in images)
