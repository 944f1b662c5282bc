"""The machine-readable "synthetic" mark inside every image: IPTC Digital Source Type in a small XMP packet.

Vocabulary: http://cv.iptc.org/newscodes/digitalsourcetype (IPTC NewsCodes). An image drawn by rules is
``algorithmicMedia``; the output of a network trained on sampled content is ``trainedAlgorithmicMedia``.
"""

import io
import re
import struct
import zlib

from PIL import Image

from synface.core.errors import InputError, unknown_name

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: term -> when it is the right one
DIGITAL_SOURCE_TYPES = {
    "algorithmicMedia": "made purely by an algorithm, not trained on sampled content (a renderer)",
    "trainedAlgorithmicMedia": "made by a model trained on sampled content (a diffusion network)",
    "compositeSynthetic": "a mix of several elements of which at least one is synthetic",
}

_JPEG_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
_PNG_XMP_KEYWORD = b"XML:com.adobe.xmp"
_TERM = re.compile(rb"newscodes/digitalsourcetype/([A-Za-z]+)")


def xmp_packet(source_type: str) -> bytes:
    """The XMP packet that names the digital source type, about 330 bytes."""
    if source_type not in DIGITAL_SOURCE_TYPES:
        raise unknown_name("digital source type", source_type, DIGITAL_SOURCE_TYPES)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{VOCABULARY}{source_type}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def mark_jpeg(data: bytes, source_type: str) -> bytes:
    """The JPEG with the packet as an APP1 segment behind its JFIF header (XMP specification, part 3)."""
    body = _JPEG_XMP_HEADER + xmp_packet(source_type)
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    start = 2
    if data[2:4] == b"\xff\xe0":
        start = 4 + struct.unpack(">H", data[4:6])[0]
    return data[:start] + segment + data[start:]


def mark_png(data: bytes, source_type: str) -> bytes:
    """The PNG with the packet as an uncompressed iTXt chunk behind IHDR."""
    body = b"iTXt" + _PNG_XMP_KEYWORD + b"\x00" * 5 + xmp_packet(source_type)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header_end = 8 + 4 + 4 + 13 + 4
    return data[:header_end] + chunk + data[header_end:]


def read_mark(data: bytes) -> str | None:
    """The digital source type that an encoded image carries, or None.

    Raises:
        InputError: the bytes are not an image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            info = image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"not a readable image ({error})") from error
    packet = info.get("xmp") or info.get(_PNG_XMP_KEYWORD.decode()) or b""
    found = _TERM.search(packet.encode() if isinstance(packet, str) else packet)
    return found.group(1).decode() if found else None
