"""MPEG audio (mp3): the frames that are there.

An mp3 has no header for the whole. Most begin with a frame that holds no sound but a table named Xing or Info: the number
of frames, and how many samples the encoder put in front and behind. A decoder that believes it, or guesses the length
from the bit rate of the first frame where it lacks, loses sound. So all frames are counted here, and the table is set
right before the decoder sees it. After a second table another file begins that somebody joined to the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dsn_lite.audio.sources import Contents, Part, Source

_KBITS = {  # by version (1; 2 for 2 and 2.5) and layer
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[2, 3] = _KBITS[2, 2]
_RATES = (44100, 48000, 32000)
_DECODER_DELAY = 529  # samples


class Frame(NamedTuple):
    """What the four bytes at the head of a frame say."""

    size: int
    samples: int
    kind: tuple[int, int, int, int]  #: version, layer, rate and channels, the same in all frames of a stream
    side: int  #: bytes of header and side information, where in layer III the sound begins


def frame_at(source: Source, at: int) -> Frame | None:
    """The frame whose header lies at `at`; None where that is no header."""
    head = source.read(at, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    family, channels = 1 if version == 3 else 2, 1 if head[3] >> 6 == 3 else 2
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and family == 2 else 1152
    slot = 4 if layer == 1 else 1
    size = (samples // 8 * 1000 * _KBITS[family, layer][bits - 1] // hertz // slot + (head[2] >> 1 & 1)) * slot
    side = {(1, 1): 17, (1, 2): 32, (2, 1): 9, (2, 2): 17}[family, channels]
    return Frame(size, samples, (version, layer, hertz, channels), 4 + (0 if head[1] & 1 else 2) + side)


def tag_at(source: Source, at: int) -> int:
    """Bytes of a tag (ID3, APE, Lyrics3) at `at`; 0 where there is none."""
    head = source.read(at, 32)
    if head[:3] == b"ID3" and len(head) >= 10:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        is_header = head[23] & 0x20
        return 32 + (int.from_bytes(head[12:16], "little") if is_header else 0)
    if head[:11] == b"LYRICSBEGIN":
        end = source.find(b"LYRICS200", at)
        return end + 9 - at if end >= 0 else 0
    return 0


def is_mpeg(source: Source) -> bool:
    """Whether it begins with MPEG audio: a tag and two frames of a kind, or one that is all."""
    at = tag_at(source, 0)
    frame = frame_at(source, at)
    return frame is not None and (at + frame.size >= source.size or _follows(source, at + frame.size, frame))


def _follows(source: Source, at: int, frame: Frame) -> bool:
    """Whether at `at` something begins that may come after `frame`."""
    after = frame_at(source, at)
    return after.kind == frame.kind if after else at >= source.size or tag_at(source, at) > 0


def _resync(source: Source, at: int) -> int:
    """Where the next frame or tag begins, at `at` or later."""
    while at < source.size:
        window = source.read(at, 4096)
        found = min((i for i in (window.find(b"\xff"), window.find(b"ID3"), window.find(b"TAG")) if i >= 0), default=-1)
        if found < 0:
            at += max(1, len(window) - 2)
            continue
        at += found
        frame = frame_at(source, at)
        after = at + frame.size if frame else source.size
        if tag_at(source, at) or (after < source.size and _follows(source, after, frame)):
            return at
        at += 1
    return source.size


def _walk(source: Source) -> Iterator[tuple[int, Frame | None, int]]:
    """Frames (position, frame, 0) and, between them, bytes that are none (position, None, how many)."""
    at, before = 0, None
    while at < source.size:
        frame = frame_at(source, at)
        if frame and at + frame.size > source.size:
            yield at, None, source.size - at
            return
        is_sure = frame and (_follows(source, at + frame.size, frame) or frame_at(source, at + frame.size))
        if not is_sure and (tag := tag_at(source, at)):
            at, before = at + tag, None
            continue
        after = at + frame.size if is_sure else _resync(source, at + 1)
        if is_sure or (frame and before and frame.kind == before.kind and after >= at + frame.size):
            yield at, frame, 0
            at, before = at + frame.size, frame
        else:
            yield at, None, after - at
            at, before = after, None


def contents(source: Source) -> Contents:
    """The streams of the file: one, or as many as were joined."""
    result = Contents([])
    seen: list[tuple[int, Frame]] = []

    def close() -> None:
        if seen and (part := _part(source, seen, result)):
            result.parts.append(part)
        seen.clear()

    for at, frame, skipped in _walk(source):
        if frame is None:
            if at + skipped >= source.size and frame_at(source, at):
                result.faults.append("cut off in a frame")
            elif result.parts or seen:  # what lies before the first frame is nobody's sound
                result.faults.append(f"damaged, {skipped} bytes at {at} are no MPEG audio")
            close()
            continue
        if seen and (frame.kind != seen[0][1].kind or _table_at(source, at, frame)):
            close()
        seen.append((at, frame))
    close()
    return result


def _table_at(source: Source, at: int, frame: Frame) -> bool:
    """Whether a frame is a table of Xing's."""
    return frame.kind[1] == 3 and source.read(at + frame.side, 4) in (b"Xing", b"Info")


def _part(source: Source, frames: list[tuple[int, Frame]], result: Contents) -> Part | None:
    """One stream: behind a table that says what is there, so that what an encoder put around the sound is cut off."""
    at, first = frames[0]
    if not _table_at(source, at, first):
        return _without_table(source, frames)
    table, frames = bytearray(source.read(at, first.size)), frames[1:]
    if not frames:
        return None
    number = lambda place: int.from_bytes(table[place : place + 4], "big")
    flags, place = number(first.side + 4), first.side + 8
    trims = place + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2 + 21
    trimmed = int.from_bytes(table[trims : trims + 3], "big") if len(table) > trims + 2 else 0
    delay, padding = divmod(trimmed, 1 << 12)  # twelve bits each
    if not flags & 1 or not delay or not table[trims - 21]:
        return _without_table(source, frames)
    if number(place) > len(frames) + 1 and not result.faults:
        result.faults.append(f"cut off, {len(frames)} of {number(place)} frames are there")
    if number(place) != len(frames):  # what was appended lies elsewhere, if anywhere
        table[trims + 1] &= 0xF0
        padding = table[trims + 2] = 0
    stream = range(frames[0][0], frames[-1][0] + frames[-1][1].size)
    table[4 : first.side] = bytes(first.side - 4)
    table[place : place + 4] = len(frames).to_bytes(4, "big")
    if flags & 2:
        table[place + 4 : place + 8] = (len(table) + len(stream)).to_bytes(4, "big")
    samples = len(frames) * first.samples - delay - max(padding, _DECODER_DELAY)
    return Part([bytes(table), stream], samples=max(0, samples))


def _without_table(source: Source, frames: list[tuple[int, Frame]]) -> Part:
    return Part(_audible(source, frames), samples=len(frames) * frames[0][1].samples, is_endless=True)


def _audible(source: Source, frames: list[tuple[int, Frame]]) -> list[bytes | range]:
    """The frames; of those at the start whose sound began in a frame that is lost, silence of the same length."""
    stored = 0
    pieces: list[bytes | range] = []
    at = frames[0][0]
    for where, frame in frames[:16]:
        version, layer = frame.kind[:2]
        head = source.read(where, frame.side)
        side = 4 if head[1] & 1 else 6
        begins = int.from_bytes(head[side : side + 2], "big")  # so many bytes before the frame; the rest is none of it
        begins &= 0xFF80 if version == 3 else 0xFF00
        if layer != 3 or begins >> (7 if version == 3 else 8) <= stored:
            break
        still = head[:side] + begins.to_bytes(2, "big") + bytes(frame.side - side - 2)
        pieces += [still, range(where + frame.side, where + frame.size)]
        stored += frame.size - frame.side
        at = where + frame.size
    return [*pieces, range(at, frames[-1][0] + frames[-1][1].size)]
