"""Ogg (Vorbis, Opus) and FLAC: files joined end to end, and a FLAC whose header gives no length or a wrong one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from dsn_lite.audio.mpeg import tag_at
from dsn_lite.audio.sources import Contents, Part, Source

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FIRST, _LAST = 2, 4  # flags of a page
_NO_LENGTH = (0, (1 << 36) - 1)
_FLAC = b"fLaC\0\0\0\x22"
_INFO = 42  # bytes of that, and of the block that says rate, channels and length


class _Page(NamedTuple):
    at: int
    size: int
    flags: int
    number: int
    serial: int


def checksum(page: bytes) -> int:
    """The checksum of an Ogg page whose own four bytes for it are zero.

    It is that of zlib from the least bit on, without the two inversions.

    >>> hex(checksum(b"123456789"))
    '0x89a1897f'
    """
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _page_at(source: Source, at: int) -> _Page | None:
    head = source.read(at, 27)
    if len(head) < 27 or head[:5] != b"OggS\0":
        return None
    table = source.read(at + 27, head[26])
    size = 27 + head[26] + sum(table)
    if at + size > source.size:
        return None
    page = bytearray(source.read(at, size))
    page[22:26] = bytes(4)
    if checksum(bytes(page)) != int.from_bytes(head[22:26], "little"):
        return None
    return _Page(at, size, head[5], int.from_bytes(head[18:22], "little"), int.from_bytes(head[14:18], "little"))


def _pages(source: Source) -> Iterator[_Page | None]:
    """The pages that are whole; None for what lies between or behind them."""
    at = 0
    while at < source.size:
        if page := _page_at(source, at):
            yield page
            at += page.size
        else:
            yield None
            found = source.find(b"OggS", at + 1)
            at = found if found >= 0 else source.size


def ogg(source: Source) -> Contents:
    """One part for each link of a chain: each begins with pages that are the first of their streams."""
    result, starts, before, is_broken, is_gap = Contents([]), [], None, False, False
    numbers: dict[int, int] = {}
    for page in _pages(source):
        if page is None:
            is_gap = bool(starts)
            continue
        is_broken, is_gap = is_broken or (is_gap and not page.flags & _FIRST), False
        if page.flags & _FIRST and not (before and before.flags & _FIRST):
            starts.append(page.at)
            numbers.clear()
        elif page.number != numbers.get(page.serial, page.number - 1) + 1 and not page.flags & _FIRST:
            is_broken = True
        numbers[page.serial] = page.number
        before = page
    if not starts:
        return result
    if is_broken or (is_gap and not before.flags & _LAST):  # behind the last page may lie a tag
        result.faults.append("damaged or cut off, pages are missing or spoilt")
    elif not before.flags & _LAST:
        result.notes.append("it has no mark at its end")
    ends = [*starts[1:], before.at + before.size]
    result.parts = [Part([range(start, end)]) for start, end in zip(starts, ends, strict=True)]
    return result


def find_flac(source: Source) -> int:
    """Where a FLAC begins, perhaps behind a tag; -1 where none does."""
    at = tag_at(source, 0)
    return at if source.read(at, 4) == _FLAC[:4] else -1


def flac(source: Source, at: int) -> Contents:
    """One part for each file that was joined; none has a length in its header, so that all is decoded."""
    result = Contents([])
    while at >= 0:
        after = source.find(_FLAC, at + 4)
        result.parts.append(_flac_part(source, at, after if after >= 0 else source.size))
        at = after
    return result


def _flac_part(source: Source, at: int, end: int) -> Part:
    head = bytearray(source.read(at, min(_INFO, end - at)))
    samples = None
    if len(head) == _INFO:
        samples = (head[21] & 0x0F) << 32 | int.from_bytes(head[22:26], "big")
        head[21] &= 0xF0
        head[22:26] = bytes(4)
        head[26:42] = bytes(16)  # and no checksum of all samples
        head[4] |= 0x80  # no pictures and tags after it
    first = at + len(head)
    while len(head) == _INFO and not source.read(at + 4, 1)[0] & 0x80 and first < end:
        block = source.read(first, 4)
        first += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:
            break

    def resume(done: int) -> tuple[int, Part] | None:
        """Where a frame begins that a damaged one does not hide: its first sample, and what follows as a part."""
        largest = int.from_bytes(head[10:12], "big")
        where = first
        while 0 <= (where := source.find(b"\xff", where)) < end:
            number = _frame_number(source.read(where, 16), largest)
            if number is not None and number > done:
                return number, Part([bytes(head), range(where, end)], resume=resume)
            where += 1
        return None

    known = None if samples in _NO_LENGTH else samples
    return Part([bytes(head), range(first, end)], samples=known, resume=resume if len(head) == _INFO else None)


def _frame_number(head: bytes, largest: int) -> int | None:
    """The first sample of the FLAC frame that begins with `head`; None where none does."""
    if len(head) < 16 or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[2] >> 4 == 0 or head[2] & 15 == 15:
        return None
    ones = 8 - (~head[4] & 0xFF).bit_length()  # of the number, coded as UTF-8 codes a letter
    size = max(1, ones)
    if ones == 1 or ones == 8:
        return None
    number = head[4] & 0x7F >> ones
    for byte in head[5 : 4 + size]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    place = 4 + size + {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    check = 0
    for byte in head[:place]:
        check ^= byte
        for _ in range(8):
            check = (check << 1 ^ 0x107) if check & 0x80 else check << 1
    if place >= 16 or check != head[place]:
        return None
    return number if head[1] & 1 else number * largest
