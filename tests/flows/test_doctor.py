from synface.flows import doctor


def test_what_ships_is_found_and_what_is_missing_has_its_source(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNFACE_DATA", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lfw.bin").write_bytes(b"x")
    found = doctor.run()
    assert found["quickstart"] == "ready"
    assert {row["name"]: row["ok"] for row in found["embedded"]} == {
        "heads-fr-tiny": True,
        "cemiface-tiny": True,
        "cemiface-tiny-paper": True,
        "heads": True,
    }
    assert all(len(row["sha256"]) == 64 and row["licence"] for row in found["embedded"])
    external = {row["name"]: row for row in found["external"]}
    assert external["verification set lfw"]["found"] and not external["verification set cplfw"]["found"]
    assert all(row["licence"] and row["source"] and row["sha256"] for row in external.values())


def test_damaged_weights_are_a_fault(monkeypatch, tmp_path):
    from synface.models import weights

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(weights.PRETRAINED, "heads-fr-tiny", tmp_path)
    found = doctor.run()
    assert not next(row for row in found["embedded"] if row["name"] == "heads-fr-tiny")["ok"]
    assert "heads-fr-tiny" in found["quickstart"]
