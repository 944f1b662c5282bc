"""The verbs evaluate ijb and evaluate tinyface on folders written here, against plain loops."""

import json

import numpy as np
import pytest
import torch
from blobs import SIZE, blob, png

from synface import cli
from synface.core import crops, identification, scores
from synface.core.errors import InputError
from synface.evaluate import ijb_run, tinyface_run
from synface.evaluate.faces_config import EvaluateIjbConfig, EvaluateTinyfaceConfig
from synface.models import weights
from synface.settings import build

FACES, PEOPLE, MARGIN = 48, 6, 8
FAR = [0.01, 0.1]


def person_of(template):
    return template % PEOPLE


def people_and_places():
    """Template and medium of every face: 16 templates of three faces, two of them of one medium."""
    template = 10 + np.arange(FACES) // 3
    return template, np.where(np.arange(FACES) % 3 == 2, 1, 0) + 2 * template


@pytest.fixture(scope="module")
def ijb_folder(tmp_path_factory):
    """IJB-C's files in small: faces off-centre in larger pictures, landmarks, pairs, two galleries, probes."""
    root = tmp_path_factory.mktemp("ijb")
    meta, loose = root / "meta", root / "loose_crop"
    meta.mkdir(), loose.mkdir()
    template, media = people_and_places()
    places, marks = [], []
    for i in range(FACES):
        picture = np.zeros((SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3), np.uint8)
        picture[MARGIN:-MARGIN, MARGIN:-MARGIN] = blob(person_of(template[i]), i)
        (loose / f"{i + 1}.jpg").write_bytes(png(picture))
        places.append(f"{i + 1}.jpg {template[i]} {media[i]}")
        points = " ".join(f"{v:.6f}" for v in (crops.template(SIZE) + MARGIN).ravel())
        marks.append(f"{i + 1}.jpg {points} {0.5 + i / 100:.3f}")
    (meta / "ijbc_face_tid_mid.txt").write_text("\n".join(places) + "\n")
    (meta / "ijbc_name_5pts_score.txt").write_text("\n".join(marks) + "\n")
    ids = np.unique(template)
    pairs = [(a, b, int(person_of(a) == person_of(b))) for a in ids for b in ids if a < b]
    (meta / "ijbc_template_pair_label.txt").write_text("".join(f"{a} {b} {s}\n" for a, b, s in pairs))
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID\n"
    for name, chosen in (
        ("ijbc_1N_gallery_G1.csv", [10, 11, 12]), ("ijbc_1N_gallery_G2.csv", [13, 14, 15]),
        ("ijbc_1N_probe_mixed.csv", list(range(16, 26))),
    ):  # fmt: skip
        lines = [f"{t},{person_of(t)},img/{t}-{k}.jpg,{k}" for t in chosen for k in range(2)]
        (meta / name).write_text(head + "\n".join(lines) + "\n")
    return root


def features(folder):
    """Raw flip-summed features of the crops themselves, one at a time."""
    module, _ = weights.from_pretrained(folder)
    template, _ = people_and_places()
    rows = []
    with torch.inference_mode():
        for i in range(FACES):
            crop = blob(person_of(template[i]), i)
            x = torch.from_numpy(crops.to_network(np.stack([crop, crop[:, ::-1]])))
            rows.append(module(x).double().sum(0).numpy())
    return np.array(rows)


def naive_templates(feature, score):
    template, media = people_and_places()
    weighted = feature * score[:, None]
    rows = []
    for t in np.unique(template):
        means = [weighted[(template == t) & (media == m)].mean(0) for m in np.unique(media[template == t])]
        rows.append(np.sum(means, 0))
    return scores.unit_rows(np.array(rows))


def ijb_config(root, output, weights_uri, **fields):
    data = {"output": str(output), "weights": weights_uri, "faces": str(root / "loose_crop"), "far": FAR}
    return build(EvaluateIjbConfig, {**data, "protocol": str(root / "meta"), "ranks": [1, 2], **fields})


@pytest.mark.ray
def test_ijb_numbers_equal_a_plain_loop(ray_cluster, ijb_folder, random_weights, tmp_path):
    asked = ijb_config(ijb_folder, tmp_path / "o", random_weights)
    result = ijb_run.run(asked)
    x = naive_templates(features(random_weights), 0.5 + np.arange(FACES) / 100)
    ids = np.arange(10, 26)
    cos, same = [], []
    for a in range(len(ids)):
        for b in range(a + 1, len(ids)):
            cos.append(float(x[a] @ x[b]))
            same.append(person_of(ids[a]) == person_of(ids[b]))
    curve = scores.roc(np.array(cos), np.array(same))
    content = json.loads((tmp_path / "o" / "results.json").read_text())
    for far in FAR:
        assert content["verification"]["tar_at_far"][f"{far:g}"]["tar"] == scores.tar_at_far(curve, far).tar
    assert content["verification"]["auc"] == pytest.approx(scores.auc(np.array(cos), np.array(same)), abs=1e-9)
    rank = []
    for gallery in (np.arange(0, 3), np.arange(3, 6)):
        found = identification.search(x[6:], person_of(ids[6:]), x[gallery], person_of(ids[gallery]))
        rank.append(identification.rank_rates(found, (1, 2)))
    assert content["identification"]["G1"]["rank"] == {str(k): v for k, v in rank[0].items()}
    assert content["identification"]["mean"]["rank"]["1"] == pytest.approx((rank[0][1] + rank[1][1]) / 2)
    assert content["identification"]["G2"]["mated"] == int(np.isin(person_of(ids[6:]), person_of(ids[3:6])).sum())
    assert result["tar_at_far"]["0.1"] == scores.tar_at_far(curve, 0.1).tar
    assert ijb_run.run(asked)["cached"]


def test_nist_pairs_without_labels_take_them_from_the_subjects(ijb_folder, random_weights, tmp_path):
    from synface.store.formats import ijb

    meta = tmp_path / "meta"
    meta.mkdir()
    for file in (ijb_folder / "meta").iterdir():
        if "pair_label" not in file.name:
            (meta / file.name).write_bytes(file.read_bytes())
    (meta / "ijbc_11_G1_G2_matches.csv").write_text("10,16\n10,17\n13,25\n")
    files = ijb.find_files(str(meta))
    left, right, same = ijb.read_pairs(files)
    assert (left.tolist(), right.tolist(), same.tolist()) == ([10, 10, 13], [16, 17, 25], [True, False, True])
    (meta / "ijbc_11_G1_G2_matches.csv").write_text("10,16\n99,17\n")
    with pytest.raises(InputError, match="template 99 has no subject"):
        ijb.read_pairs(files)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ijbc_face_tid_mid.txt", None, "no ijbc_face_tid_mid.txt or ijbb_face_tid_mid.txt here"),
        ("ijbc_name_5pts_score.txt", None, "no ijbc_name_5pts_score.txt; it holds the landmarks"),
        ("ijbc_name_5pts_score.txt", "1.jpg 1 2 3\n", "not the expected file"),
        ("ijbc_template_pair_label.txt", "10 11 0\n10 12 0\n", "all 2 pairs are impostor"),
        ("ijbc_template_pair_label.txt", "10 11 0\n10 12 2\n", "labels must be 0 or 1"),
        ("ijbc_template_pair_label.txt", "10 x 0\n", "not the expected file"),
    ],
)
def test_damaged_protocol_files_are_refused(ijb_folder, random_weights, tmp_path, name, text, message):
    meta = tmp_path / "meta"
    meta.mkdir()
    for file in (ijb_folder / "meta").iterdir():
        (meta / file.name).write_bytes(file.read_bytes())
    (meta / name).unlink() if text is None else (meta / name).write_text(text)
    with pytest.raises(InputError, match=message):
        ijb_run.plan(ijb_config(ijb_folder, tmp_path / "o", random_weights, protocol=str(meta)))


@pytest.fixture(scope="module")
def tinyface_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tinyface")
    for part, people, samples in (
        ("Probe", range(1, 6), (0, 1)), ("Gallery_Match", range(1, 6), (2,)),
        ("Gallery_Distractor", range(70, 90), (0,)),
    ):  # fmt: skip
        (root / part).mkdir()
        for person in people:
            for k in samples:
                name = f"{person}_{k}.png" if part != "Gallery_Distractor" else f"x{person}.png"
                (root / part / name).write_bytes(png(blob(person, k)))
    return root


@pytest.mark.ray
def test_tinyface_ranks_equal_a_plain_loop(ray_cluster, tinyface_folder, random_weights, tmp_path):
    fields = {"weights": random_weights, "faces": str(tinyface_folder), "ranks": [1, 5], "flip": False}
    asked = build(EvaluateTinyfaceConfig, {"output": str(tmp_path / "o"), **fields})
    assert tinyface_run.plan(asked)["Gallery_Distractor"] == 20
    result = tinyface_run.run(asked)
    module, _ = weights.from_pretrained(random_weights)
    with torch.inference_mode():

        def embed(keys):
            rows = [module(torch.from_numpy(crops.to_network(blob(*key)[None])))[0].numpy() for key in keys]
            return scores.unit_rows(np.array(rows))

        probe_keys = [(p, k) for p in range(1, 6) for k in (0, 1)]
        gallery_keys = [(p, 2) for p in range(1, 6)] + [(p, 0) for p in range(70, 90)]
        cos = embed(probe_keys) @ embed(gallery_keys).T
    place = [int((row >= row[key[0] - 1]).sum()) for row, key in zip(cos, probe_keys, strict=True)]
    assert result["rank"] == {"1": np.mean(np.array(place) <= 1), "5": np.mean(np.array(place) <= 5)}


def test_tinyface_folders_are_checked(tmp_path, random_weights, capsys):
    arguments = ["evaluate", "tinyface", "--weights", random_weights, "--faces", str(tmp_path), "--output", "o"]
    assert cli.main([*arguments, "--dry-run"]) == 2
    assert "no images in Probe/" in capsys.readouterr().err
