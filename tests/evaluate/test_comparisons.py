"""The published table, the gap to real, statistics over groups."""

import numpy as np
import pytest

from synface.evaluate import groups, published


@pytest.mark.parametrize("row", published.PUBLISHED, ids=lambda r: f"{r.system} {r.images} {r.source[:8]}")
def test_a_published_average_is_that_of_its_row(row):
    assert row.average == pytest.approx(np.mean(row.accuracies), abs=0.0101)  # two decimals, rounded or cut


def test_both_definitions_of_the_gap():
    casia = next(r for r in published.PUBLISHED if r.system == "CASIA-WebFace (CosFace)")
    cemiface = next(r for r in published.PUBLISHED if (r.system, r.images) == ("CemiFace", "0.5M"))
    gap = published.gap_to_real(casia.average, cemiface.average)
    assert round(gap["points"], 2) == 1.96  # CemiFace, Table 6
    dcface = published.gap_to_real(94.62, 89.56)
    assert round(dcface["relative_percent"], 2) == 5.65  # DCFace, Table 3
    assert published.gap_to_real(90.0, 92.0)["points"] == -2  # better than real


def rows(**accuracy):
    return {name: {"verification": {"accuracy": value}} for name, value in accuracy.items()}


def test_gaps_of_what_two_evaluations_share():
    found = published.gaps(rows(lfw=0.99, cfp_fp=0.9, own=0.5), rows(lfw=0.98, cfp_fp=0.85, other=0.1))
    assert set(found) == {"lfw/verification", "cfp_fp/verification", "average"}
    assert found["average"]["points"] == pytest.approx(3.0)
    assert found["lfw/verification"]["relative_percent"] == pytest.approx(100 / 98)
    with pytest.raises(ValueError, match="has none of own/verification"):
        published.gaps(rows(lfw=0.9), rows(own=0.9))


def test_a_users_row_stands_among_the_published_ones():
    ours = rows(lfw=0.9903, cfp_fp=0.9, agedb_30=0.9, calfw=0.9, cplfw=0.88)
    table = published.beside(ours, "ours")
    averages = [row["average"] for row in table]
    assert averages == sorted(averages) and len(table) == len(published.PUBLISHED) + 1
    own = next(row for row in table if row["system"] == "ours")
    assert own["average"] == pytest.approx((99.03 + 90 * 3 + 88) / 5)
    assert set(own) == set(table[0])
    assert len(published.beside(rows(lfw=0.99))) == len(published.PUBLISHED)  # not all five: nothing to place


def test_statistics_over_groups_by_hand():
    found = groups.group_statistics({"African": 0.90, "Asian": 0.92, "Caucasian": 0.96, "Indian": 0.94})
    assert found["mean"] == pytest.approx(0.93)
    assert found["std"] == pytest.approx(0.0223606797749979)
    assert found["skewed_error_ratio"] == pytest.approx(0.10 / 0.04)
    assert found["trade_off"] == pytest.approx(0.93 - 0.0223606797749979)
    assert (found["lowest"], found["highest"]) == ("African", "Caucasian")
    assert groups.group_statistics({"a": 1.0, "b": 0.9})["skewed_error_ratio"] is None
    with pytest.raises(ValueError, match="1 groups"):
        groups.group_statistics({"a": 1.0})


def test_slices_with_too_few_pairs_are_left_out():
    sex = {"female": {"balanced_accuracy": 0.8}, "male": {"balanced_accuracy": 0.9}}
    age = {"young": {"balanced_accuracy": 0.8}, "old": {"balanced_accuracy": None}}
    found = groups.over_slices({"heads-v1": {"pose": {"slices": {"sex": sex, "age": age}}}})
    assert set(found) == {"heads-v1/pose/sex"}
    assert found["heads-v1/pose/sex"]["mean"] == pytest.approx(0.85)
