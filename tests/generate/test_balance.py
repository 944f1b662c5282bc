"""Equally many identities of every group: by the nearest known person, in the table's order."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from generate_helpers import DemoIdentities, write_identities

from synface.core.errors import InputError
from synface.generate import balance
from synface.generate.config import Balance, GenerateConfig
from synface.generate.generators.types import Description
from synface.generate.identities import open_identities
from synface.settings import build, hashed_fields, input_uris
from synface.store import artifact, schemas, tables

#: people p0 ... p7 stand on the axes of eight dimensions
GROUPS = ["a", "a", "b", "a", "b", "a", "c", "b"]
DRAWS = Description("toy", "", "1", "CC0-1.0", {}, "algorithmicMedia", 64, needs_embedding=True)


def test_rows_are_the_first_of_each_group():
    assert balance.balanced_rows(GROUPS).tolist() == [0, 2, 6]
    assert balance.balanced_rows(["x", "y", "x", "y", "x"]).tolist() == [0, 1, 2, 3]


@pytest.fixture
def people(tmp_path) -> str:
    return write_identities(tmp_path / "people", 8, ids=[f"p{i}" for i in range(8)])


def write_csv(folder, groups=GROUPS, header="identity_id,group") -> str:
    place = folder / "labels.csv"
    place.write_text("\n".join([header, *(f"p{i},{g}" for i, g in enumerate(groups))]) + "\n")
    return str(place)


def config_of(people, labels, identities=None, **fields) -> GenerateConfig:
    given = {"people": people, "labels": labels, "by": ["group"]} | fields
    return build(
        GenerateConfig, {"generator": "toy:Toy", "identities": identities or people, "balance": given, "output": "o"}
    )


def test_given_people_count_by_themselves(people, tmp_path, capsys):
    found = open_identities(config_of(people, write_csv(tmp_path)), DRAWS)
    assert found.columns["identity_id"].to_pylist() == ["p0", "p2", "p6"]
    assert found.groups == {"a": 1, "b": 1, "c": 1}
    assert "3 of 8 identities kept, 1 of each group; there were a: 4; b: 3; c: 1" in capsys.readouterr().err


def test_packed_ones_count_by_whom_they_would_be_taken_for(people, tmp_path):
    axis = np.array([6, 2, 2, 0, 6, 1, 7])  # c b b a c a b
    x = 0.9 * np.eye(8)[axis] + 0.1
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    packed = write_identities(tmp_path / "packed", 7, embedding_nd=x.astype(np.float32))
    found = open_identities(config_of(people, write_csv(tmp_path), packed), DRAWS)
    names = tables.read_identities(packed)["identity_id"].to_pylist()
    assert found.columns["identity_id"].to_pylist() == [names[i] for i in (0, 1, 2, 3, 4, 5)]
    assert found.groups == {"a": 2, "b": 2, "c": 2}


def test_labels_of_an_images_tables_attributes(people, tmp_path):
    schema = schemas.images_schema(pa.struct([("sex", pa.string()), ("ancestry", pa.string())]))
    rows = [
        {
            "image": {"bytes": b"", "path": ""}, "label": i, "identity_id": f"p{i}", "sample": k, "seed": 0,
            "attributes": {"sex": "female" if i % 2 else "male", "ancestry": "asian"}, "generator": "toy",
            "weights_sha256": "", "config_hash": "",
        }
        for i in range(8)
        for k in range(2)
    ]  # fmt: skip
    config = DemoIdentities(output=str(tmp_path / "images"))
    opened = artifact.open_output(config)
    data = tables.parquet_bytes(pa.Table.from_pylist(rows, schema=schema))
    artifact.commit(config, opened, "images", [artifact.write_file(config.output, "data/0.parquet", data, 16)], {})
    found = open_identities(config_of(people, config.output, by=["sex", "ancestry"]), DRAWS)
    assert found.groups == {"female, asian": 4, "male, asian": 4} and found.count == 8
    with pytest.raises(InputError, match=r"has no 'hair'; balance\.by names what it has"):
        open_identities(config_of(people, config.output, by=["hair"]), DRAWS)


@pytest.mark.parametrize(
    ("groups", "header", "message"),
    [
        (GROUPS[:5], "identity_id,group", "says nothing of 3 of 8 people, e.g. 'p5'"),
        (["a"] * 8, "identity_id,group", "all identities are of one group, 'a'"),
        (["a", "", *GROUPS[2:]], "identity_id,group", "p1 has no 'group'"),
        (GROUPS, "name,group", "has no 'identity_id'"),
    ],
)
def test_labels_that_do_not_fit(people, tmp_path, groups, header, message):
    with pytest.raises(InputError, match=message):
        open_identities(config_of(people, write_csv(tmp_path, groups, header)), DRAWS)


def test_a_person_of_two_groups_and_no_csv(people, tmp_path):
    place = tmp_path / "twice.csv"
    place.write_text("identity_id,group\np0,a\np0,b\n")
    with pytest.raises(InputError, match="p0 is a and b"):
        open_identities(config_of(people, str(place)), DRAWS)
    place.write_bytes(b"identity_id,group\np0,a,c\n")
    with pytest.raises(InputError, match="not a readable CSV file"):
        open_identities(config_of(people, str(place)), DRAWS)


def test_people_of_another_recognizer(people, monkeypatch, tmp_path):
    other = SimpleNamespace(people=people, labels=write_csv(tmp_path), by=("group",))
    table = tables.read_identities(people).replace_schema_metadata({"embedder": "x", "embedder_sha256": "ef" * 32})
    with pytest.raises(InputError, match=r"balance\.people .*the identities' embedder is 'x'"):
        balance.groups(other, table)  # type: ignore[arg-type]


def test_configurations(people):
    with pytest.raises(InputError, match="balance looks at embeddings"):
        build(
            GenerateConfig,
            {"num_identities": 3, "domain": "heads-real", "output": "o", "balance": {"people": "p", "labels": "l"}},
        )
    config = config_of(people, "labels.csv")
    assert set(input_uris(config)) == {"identities", "balance.people", "balance.labels"}
    plain = build(GenerateConfig, {"identities": people, "output": "o"})
    assert "balance" not in hashed_fields(plain, {"identities": "d"})["fields"]
    assert Balance(people="p", labels="l").by == ("sex", "ancestry")
