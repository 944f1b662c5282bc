"""The renderer's contract: keyed, aligned, bounded, and unchanged within a RENDERER_VERSION."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from synface.core.crops import template
from synface.core.errors import InputError
from synface.models import heads
from synface.models.heads.assets import load_assets, morph
from synface.models.heads.hair import STYLES
from synface.models.heads.identity import MODIFIER_BOUND, SHAPE_BOUND, face_shape, morph_weights
from synface.models.heads.variation import EXPRESSIONS, OCCLUDERS, HairChange, Quality

GOLDEN = Path(__file__).parent / "golden.npz"
SIZE = 48


@pytest.fixture(scope="module")
def renderer() -> heads.HeadRenderer:
    return heads.HeadRenderer(SIZE)


def plain(variation: heads.Variation, **changes) -> heads.Variation:
    """The variation without damage or worn things, changed."""
    quiet = {"quality": Quality(), "accessories": (), "occluder": "none", "hair": HairChange(), "age_shift": 0.0}
    return dataclasses.replace(variation, **{**quiet, **changes})


def test_same_key_same_bytes_in_any_order():
    keys = [("heads-real", seed, sample) for seed in (1, 2) for sample in range(3)]

    def render_all(order):
        fresh = heads.HeadRenderer(SIZE)
        return {
            k: fresh.render(heads.sample_identity(*k[:2]), heads.sample_variation(*k)).image.tobytes() for k in order
        }

    forward, backward = render_all(keys), render_all(keys[::-1])
    assert forward == backward
    assert len(set(forward.values())) == len(keys)


def test_a_key_depends_on_domain_seed_and_stress():
    assert heads.sample_identity("heads-real", 5) == heads.sample_identity("heads-real", 5)
    assert heads.sample_identity("heads-real", 5) != heads.sample_identity("heads-digi", 5)
    assert heads.sample_identity("heads-real", 5) != heads.sample_identity("heads-real", 6)
    drawn = [heads.sample_variation("heads-real", 5, 0, stress=s) for s in heads.STRESSES]
    assert len({v.seed for v in drawn}) == len(heads.STRESSES)


def test_splits_are_disjoint():
    ranges = sorted(heads.SPLITS.values())
    assert set(heads.SPLITS) == {"train", "val", "test"}
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))


def test_image_and_attribute_schema_are_fixed(renderer):
    schemas = set()
    for domain in heads.DOMAINS:
        identity = heads.sample_identity(domain, 11)
        for sample, stress in enumerate(heads.STRESSES):
            out = renderer.render(identity, heads.sample_variation(domain, 11, sample, stress=stress))
            assert out.image.shape == (SIZE, SIZE, 3) and out.image.dtype == np.uint8
            assert out.landmarks.shape == (5, 2) and out.landmarks.dtype == np.float32
            assert out.image.std() > 3
            schemas.add(tuple((k, type(v)) for k, v in out.attributes.items()))
    assert len(schemas) == 1
    assert all(t in (int, float, str, bool) for _, t in schemas.pop())
    kinds = {
        tuple((k, type(v)) for k, v in heads.identity_attributes(heads.sample_identity(d, 3)).items())
        for d in heads.DOMAINS
    }
    assert len(kinds) == 1


def test_frontal_landmarks_lie_on_the_template():
    renderer = heads.HeadRenderer(112, supersampling=1, shadows=False)
    errors = []
    for seed in range(12):
        variation = heads.sample_variation("heads-real", seed, stress="frontal")
        out = renderer.render(heads.sample_identity("heads-real", seed), variation)
        errors.append(np.abs(out.landmarks - template(112)).max())
    assert np.median(errors) < 5.0 and max(errors) < 9.0  # people differ from the template's mean face


def test_alignment_error_is_only_the_face_and_the_jitter():
    identity = heads.sample_identity("heads-real", 4)
    base = plain(heads.sample_variation("heads-real", 4, stress="frontal"), jitter=(0.0, 0.0), zoom=1.0)
    renderer = heads.HeadRenderer(112, supersampling=1, shadows=False)
    upright = renderer.render(identity, dataclasses.replace(base, roll=0.0)).landmarks
    leaning = renderer.render(identity, dataclasses.replace(base, roll=25.0)).landmarks
    np.testing.assert_allclose(leaning, upright, atol=1e-3)
    np.testing.assert_allclose(upright.mean(0), template(112).mean(0), atol=1e-3)


@pytest.mark.parametrize("name", sorted(heads.DOMAINS["heads-real"].accessories))
def test_accessory_changes_the_picture(renderer, name):
    identity = heads.sample_identity("heads-real", 17)
    identity = dataclasses.replace(identity, hair=dataclasses.replace(identity.hair, style="buzz"))  # bare ears
    bare = plain(heads.sample_variation("heads-real", 17, stress="frontal"), yaw=25.0)
    worn = dataclasses.replace(bare, accessories=(name,))
    a, b = renderer.render(identity, bare), renderer.render(identity, worn)
    assert b.attributes[name] is True and a.attributes[name] is False
    assert (a.image != b.image).any()


@pytest.mark.parametrize("name", OCCLUDERS[1:])
def test_occluder_changes_the_picture(renderer, name):
    identity = heads.sample_identity("heads-real", 17)
    bare = plain(heads.sample_variation("heads-real", 17, stress="frontal"))
    hidden = renderer.render(identity, dataclasses.replace(bare, occluder=name))
    changed = (hidden.image.astype(int) - renderer.render(identity, bare).image).any(-1).mean()
    assert hidden.attributes["occluder"] == name and changed > 0.02


def test_every_hair_style_and_expression_renders():
    identity = heads.sample_identity("heads-real", 23)
    variation = plain(heads.sample_variation("heads-real", 23, stress="frontal"), yaw=60.0)
    renderer = heads.HeadRenderer(SIZE, full=True)
    pictures = set()
    for style in STYLES:
        person = dataclasses.replace(identity, hair=dataclasses.replace(identity.hair, style=style, baldness=0.0))
        pictures.add(renderer.render(person, variation).image.tobytes())
    assert len(pictures) == len(STYLES)
    units = load_assets().units
    for name, moves in EXPRESSIONS.items():
        for unit, low, high in moves:
            assert 0 <= low <= high <= 1
            assert unit in units or all(unit[:-1] + side in units for side in ("Left", "Right")), (name, unit)


def test_stresses_draw_what_they_say():
    draws = {s: [heads.sample_variation("heads-real", k, stress=s) for k in range(200)] for s in heads.STRESSES}
    assert max(abs(v.yaw) for v in draws["frontal"]) <= 12
    assert all(not v.accessories and v.occluder == "none" for v in draws["frontal"])
    assert min(abs(v.yaw) for v in draws["pose"]) >= 20 and max(abs(v.yaw) for v in draws["pose"]) > 60
    assert min(abs(v.age_shift) for v in draws["age"]) >= 10
    bad = [v.quality.blur + (1 - v.quality.resolution) + v.quality.noise / 20 for v in draws["quality"]]
    good = [v.quality.blur + (1 - v.quality.resolution) + v.quality.noise / 20 for v in draws["any"]]
    assert np.mean(bad) > 2 * np.mean(good)


def test_domains_differ_in_breadth():
    real, digi = heads.DOMAINS["heads-real"], heads.DOMAINS["heads-digi"]
    assert set(digi.hair_styles) < set(real.hair_styles) and set(digi.accessories) < set(real.accessories)
    assert set(digi.backgrounds) < set(real.backgrounds) and set(digi.lights) < set(real.lights)
    assert digi.spread < real.spread and digi.degrade < real.degrade


def test_identities_persist_and_spread():
    people = [heads.sample_identity("heads-real", s) for s in range(40)]
    others = [heads.identity_distance(a, b) for a, b in itertools.combinations(people, 2)]
    assert heads.identity_distance(people[0], people[0]) == 0
    assert heads.identity_distance(people[0], people[1]) == heads.identity_distance(people[1], people[0])
    ages = [heads.identity_distance(p, heads.aged(p, 20 if p.age < 50 else -20)) for p in people]
    assert np.median(ages) < 0.5 * np.median(others) and np.median(ages) < np.percentile(others, 5)
    assert min(others) > 0.2


def test_age_shift_changes_mesh_and_skin_not_the_person(renderer):
    person = dataclasses.replace(heads.sample_identity("heads-real", 7), age=30.0)
    old = heads.aged(person, 35)
    assert old.age == 65 and old.modifiers == person.modifiers and old.seed == person.seed
    assert np.abs(face_shape(old) - face_shape(person)).max() > 1e-3
    base = plain(heads.sample_variation("heads-real", 7, stress="frontal"))
    young_image = renderer.render(person, base).image
    aged_out = renderer.render(person, dataclasses.replace(base, age_shift=35.0))
    assert aged_out.attributes["age"] == 65.0
    assert (aged_out.image != young_image).any()


def test_shapes_are_bounded():
    assets = load_assets()
    for seed in range(30):
        person = heads.sample_identity("heads-real", seed)
        assert np.abs(person.modifiers).max() <= MODIFIER_BOUND
        mean = dataclasses.replace(
            person, modifiers=(0.0,) * len(assets.modifiers), asymmetry=(0.0,) * len(assets.asymmetries)
        )
        own = dataclasses.replace(person, asymmetry=mean.asymmetry)
        move = np.sqrt(((face_shape(own) - face_shape(mean)) ** 2).sum(1).mean())
        assert move < 1.3 * SHAPE_BOUND  # the bound holds in the linear model about the base head


def test_morph_adds_sparse_targets():
    assets = load_assets()
    person = heads.sample_identity("heads-real", 3)
    weights = morph_weights(person)
    naive = assets.base.astype(np.float64)
    for number, weight in weights.items():
        rows = slice(assets.target_start[number], assets.target_start[number + 1])
        np.add.at(naive, assets.target_vertex[rows], weight * 5e-4 * assets.target_move[rows])
    np.testing.assert_allclose(morph(assets, assets.base, weights), naive, atol=2e-5)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: heads.sample_identity("heads-moon", 1), ["heads-moon", "heads-real"]),
        (lambda: heads.sample_identity("heads-real", -1), ["-1", "train"]),
        (lambda: heads.sample_identity("heads-real", 3 * 10**9), ["3000000000", "test"]),
        (lambda: heads.sample_variation("heads-real", 1, stress="rain"), ["rain", "quality"]),
        (lambda: heads.HeadRenderer(15), ["15", "16"]),
    ],
)
def test_bad_input_is_refused(call, names):
    with pytest.raises(InputError) as error:
        call()
    assert all(name in str(error.value) for name in names)


def golden_renders() -> np.ndarray:
    """Thumbnails (block means of 64-pixel renders), float32 [12, 16, 16, 3]."""
    renderer = heads.HeadRenderer(64)
    out = []
    for domain, (k, stress) in itertools.product(heads.DOMAINS, enumerate([*heads.STRESSES, "any"])):
        seed = 2_000_000_000 + k
        image = renderer.render(
            heads.sample_identity(domain, seed), heads.sample_variation(domain, seed, k, stress=stress)
        ).image
        out.append(image.reshape(16, 4, 16, 4, 3).mean((1, 3)))
    return np.array(out, np.float32)


def test_renders_are_those_of_this_renderer_version():
    """Fails when a picture changes: bump RENDERER_VERSION, then write the golden file anew (see docs/heads.md)."""
    with np.load(GOLDEN) as golden:
        assert int(golden["version"]) == heads.RENDERER_VERSION
        assert str(golden["assets"]) == heads.asset_digest()
        np.testing.assert_allclose(golden_renders(), golden["thumbnails"], atol=1.0)


def test_render_image_is_the_same_as_a_kept_renderer(renderer):
    one = heads.render_image("heads-digi", 9, 2, SIZE)
    two = renderer.render(heads.sample_identity("heads-digi", 9), heads.sample_variation("heads-digi", 9, 2))
    assert (one.image == two.image).all() and one.attributes == two.attributes
