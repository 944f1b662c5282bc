import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from synface.core import crops
from synface.core.errors import InputError
from synface.store import images, provenance

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def picture(size=32, seed=0):
    """Smooth colours, so that lossy formats come close."""
    y, x = np.mgrid[0:size, 0:size] / size
    shift = np.random.default_rng(seed).random(3)
    return (255 * (0.5 + 0.4 * np.sin(3 * (x[..., None] + y[..., None] * shift)))).astype(np.uint8)


@pytest.mark.parametrize("image_format", images.IMAGE_FORMATS)
@pytest.mark.parametrize("term", provenance.DIGITAL_SOURCE_TYPES)
def test_every_format_carries_the_mark_and_still_decodes(image_format, term):
    pixels = picture()
    data = images.encode(pixels, image_format, 95, term)
    assert data == images.encode(pixels.copy(), image_format, 95, term)
    assert provenance.read_mark(data) == term
    # Pillow itself finds the packet where the XMP specification puts it
    with Image.open(io.BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    (found,) = next(ElementTree.fromstring(packet).iter(RDF + "Description")).attrib.values()
    assert found == f"http://cv.iptc.org/newscodes/digitalsourcetype/{term}"
    error = np.abs(images.decode(data).astype(int) - pixels).max()
    assert error == 0 if image_format == "png" else error < 12


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_the_mark_changes_no_pixel_and_is_small(image_format):
    pixels = picture(seed=3)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(
        sink, image_format.upper(), **({"quality": 95, "subsampling": 0} if image_format == "jpeg" else {})
    )
    marked = images.encode(pixels, image_format, 95, "algorithmicMedia")
    assert (images.decode(marked) == images.decode(sink.getvalue())).all()
    assert len(marked) - len(sink.getvalue()) < 450


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize(
    "options", [{"subsampling": s} for s in range(3)] + [{"progressive": True}, {"optimize": True}]
)
@pytest.mark.parametrize("shape", [(112, 112), (33, 57), (1, 1)])
def test_jpegs_decode_to_pillows_pixels(quality, options, shape):
    """The short way gives what Pillow gives, also where the colours are coarser than the pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=quality, **options)
    assert images._decode_jpeg(sink.getvalue()) is not None
    assert np.array_equal(images.decode(sink.getvalue()), np.asarray(Image.open(sink).convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_are_left_to_pillow(mode):
    sink = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(sink, "JPEG")
    assert images._decode_jpeg(sink.getvalue()) is None
    assert np.array_equal(images.decode(sink.getvalue()), np.asarray(Image.open(sink).convert("RGB")))
    assert images._decode_jpeg(sink.getvalue()[:-40]) is None


def test_an_image_without_a_mark_has_none():
    sink = io.BytesIO()
    Image.fromarray(picture()).save(sink, "JPEG")
    assert provenance.read_mark(sink.getvalue()) is None


@pytest.mark.parametrize("image_format", images.IMAGE_FORMATS)
def test_damaged_images_are_refused(image_format):
    data = images.encode(picture(64), image_format, 90, "algorithmicMedia")
    for broken in (b"", data[:20], data[: len(data) // 2], b"GIF89a" + data, bytes(len(data))):
        with pytest.raises(InputError, match="not a readable image"):
            images.decode(broken)


def test_random_damage_never_crashes():
    rng = np.random.default_rng(0)
    for image_format in images.IMAGE_FORMATS:
        data = np.frombuffer(images.encode(picture(24), image_format, 90, "algorithmicMedia"), np.uint8)
        for _ in range(60):
            broken = data.copy()
            broken[rng.integers(0, len(data), 4)] ^= rng.integers(1, 256, 4).astype(np.uint8)
            try:
                pixels = images.decode(broken.tobytes())
            except InputError:
                continue
            assert pixels.dtype == np.uint8 and pixels.ndim == 3


def test_wrong_pixels_and_unknown_formats():
    with pytest.raises(ValueError, match="uint8"):
        images.encode(np.zeros((8, 8, 3), np.float32), "png", 90, "algorithmicMedia")
    with pytest.raises(InputError, match="known: jpeg, png, webp"):
        images.encode(picture(), "gif", 90, "algorithmicMedia")
    with pytest.raises(InputError, match="known: algorithmicMedia"):
        images.encode(picture(), "png", 90, "photograph")


def reference_crop(pixels, size, points, fine=12):
    """Every pixel of the crop as the mean of `fine` x `fine` nearest pixels of its footprint."""
    back = crops.inverse(crops.similarity_transform(points, crops.template(size)))
    steps = (np.arange(size * fine) + 0.5) / fine - 0.5
    x, y = np.meshgrid(steps, steps)
    place = np.stack([x, y], -1) @ back[:, :2].T + back[:, 2]
    column, row = np.clip(np.rint(place).astype(int), 0, len(pixels) - 1).transpose(2, 0, 1)
    return pixels[row, column].astype(float).reshape(size, fine, size, fine, 3).mean((1, 3))


@pytest.mark.parametrize("landmarks", [None, crops.FFHQ_TEMPLATE * 0.9 + 20])
def test_a_crop_of_a_large_picture_does_not_alias(landmarks):
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), np.uint8)  # all that a picture can alias
    points = crops.FFHQ_TEMPLATE if landmarks is None else landmarks
    expected = reference_crop(noise, 112, points)
    made = images.face_crop(noise, 112, landmarks)
    alone = images.align(noise, points, 112)
    assert made.shape == (112, 112, 3)
    error, aliased = np.abs(made - expected).mean(), np.abs(alone - expected).mean()
    assert error < 0.5 * aliased


def test_the_fixed_crop_puts_an_ffhq_face_on_the_arcface_template():
    """The two templates are no scaled copies of each other: 1.9 pixels of 112 apart, root mean square."""
    pixels = np.zeros((512, 512, 3), np.uint8)
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    for px, py in crops.FFHQ_TEMPLATE:
        pixels = np.maximum(pixels, (255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 72))[..., None].astype(np.uint8))
    crop = images.face_crop(pixels, 112)[..., 0].astype(float)
    forward = crops.similarity_transform(crops.FFHQ_TEMPLATE, crops.template(112))
    u, v = np.meshgrid(np.arange(112), np.arange(112))
    expected = crops.FFHQ_TEMPLATE @ forward[:, :2].T + forward[:, 2]
    for point in expected:
        weight = crop * (np.hypot(u - point[0], v - point[1]) < 7)
        found = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
        assert np.linalg.norm(found - point) < 0.25
    residual = np.sqrt(((expected - crops.template(112)) ** 2).sum(1).mean())
    assert residual == pytest.approx(1.922, abs=0.001)


def test_small_pictures_are_cropped_as_align_does():
    pixels, points = picture(112), crops.template(112)
    assert np.array_equal(images.face_crop(pixels, 112, points), images.align(pixels, points, 112))
    with pytest.raises(InputError, match="five different points"):
        images.face_crop(pixels, 112, np.full((5, 2), np.nan))
