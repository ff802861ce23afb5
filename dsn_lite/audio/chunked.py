"""WAV, AIFF, CAF, W64 and AU: where the samples lie, whatever the sizes in the header are.

A program that writes to a pipe, or was killed, leaves a size that it could not know: nothing, as much as the field holds,
or a round number. One that stores a header now and then leaves one that is too small.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from dsn_lite.audio.sources import Contents, Part, Source

_KNOWN = frozenset(
    [b"LIST", b"fact", b"bext", b"iXML", b"axml", b"cue ", b"smpl", b"inst", b"plst", b"labl", b"note", b"ltxt", b"PEAK",
     b"JUNK", b"junk", b"FLLR", b"PAD ", b"id3 ", b"ID3 ", b"_PMX", b"DISP", b"acid", b"strc", b"afsp", b"chna", b"levl",
     b"MARK", b"COMT", b"INST", b"NAME", b"AUTH", b"ANNO", b"(c) ", b"APPL", b"COMM", b"FVER", b"info", b"free", b"uuid"]
)  # fmt: skip
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_SLACK = 64  # some recorders are a few bytes of their header off


@dataclass(frozen=True)
class _Layout:
    """How a container names and counts its chunks."""

    first: int  #: where the first chunk begins
    form: str = "<I"  #: of a size, for struct
    data: bytes = b"data"  #: the chunk of the samples
    inner: int = 0  #: bytes of it before the first sample
    name: int = 4  #: bytes of a chunk's name
    align: int = 2
    is_whole: bool = False  #: a size counts the name and itself too

    @property
    def head(self) -> int:
        """Bytes before the contents of a chunk."""
        return self.name + struct.calcsize(self.form)

    def chunk(self, source: Source, at: int) -> tuple[bytes, int]:
        """Name and size of the contents of the chunk at `at`; no name where the file ends."""
        head = source.read(at, self.head)
        if len(head) < self.head:
            return b"", 0
        return head[:4], struct.unpack_from(self.form, head, self.name)[0] - (self.head if self.is_whole else 0)

    def after(self, at: int, size: int) -> int:
        """Where the next chunk begins."""
        return at + self.head + -(-size // self.align) * self.align


_LAYOUTS = {
    b"RIFF": _Layout(12), b"RF64": _Layout(12), b"BW64": _Layout(12), b"RIFX": _Layout(12, ">I"),
    b"FORM": _Layout(12, ">I", b"SSND", 8), b"caff": _Layout(8, ">q", inner=4, align=1),
    b"riff": _Layout(40, "<q", name=16, align=8, is_whole=True),
}  # fmt: skip
_AU = {b".snd": ">I", b"dns.": "<I"}
MAGIC = (*_LAYOUTS, *_AU)


def contents(source: Source) -> Contents:
    """The file, and those that were joined to it, with sizes that are true."""
    result, at = Contents([]), 0
    while at is not None:
        at = _one(source, at, result)
    return result


def _one(source: Source, begin: int, result: Contents) -> int | None:
    """Append the file that begins at `begin`; returns where the next one does."""
    magic = source.read(begin, 4)
    if magic in _AU:
        field, form = begin + 8, _AU[magic]
        start, promised = (struct.unpack(form, source.read(begin + i, 4).rjust(4, b"\0"))[0] for i in (4, 8))
        start, layout, extra = begin + start, None, 0
    else:
        layout = _LAYOUTS[magic]
        form, extra = layout.form, layout.head if layout.is_whole else 0
        at, field = begin + layout.first, None
        name, promised = layout.chunk(source, at)
        while name not in (b"", layout.data):
            if name == b"ds64":
                field, wide = at + 16, struct.unpack("<q", source.read(at + 16, 8).rjust(8, b"\0"))[0]
            at = layout.after(at, promised)
            name, promised = layout.chunk(source, at)
        if not name:
            result.parts.append(Part([range(begin, source.size)]))
            return None
        start = at + layout.head
        if field is not None and promised == 0xFFFFFFFF:
            form, promised = "<q", wide
        else:
            field = at + layout.name
    size, later = _extent(source, layout, start, promised, result)
    stored = struct.pack(form, size + extra)
    end = source.size if later is None else later
    if layout and layout.is_whole:  # of a W64 libsndfile takes all that follows for samples
        end = start + size
    result.parts.append(Part([range(begin, field), stored, range(field + len(stored), end)]))
    return later


def _extent(
    source: Source, layout: _Layout | None, start: int, promised: int, result: Contents
) -> tuple[int, int | None]:
    """Bytes of the samples from `start` on, and where a file that was joined begins."""
    there = max(0, source.size - start)
    if promised < 0 or promised > there:
        if _is_placeholder(promised, there):
            if promised > 0 and promised % 10 == 0:
                result.notes.append(f"the header promises {promised} bytes, {there} are there")
        elif promised - there >= _SLACK:
            result.faults.append(f"cut off, {promised - there} bytes are missing at its end")
        return there, None
    after = start + promised if layout is None else start - layout.head + layout.after(0, promised)
    later = after
    if source.read(start + promised, 4) in MAGIC:  # not padded
        later = start + promised
    while later < source.size:
        if source.read(later, 4) in MAGIC and later > start:
            return promised, later
        name, size = layout.chunk(source, later) if layout else (b"", 0)
        if not _is_chunk(name, size, source.size - later):
            break
        later = layout.after(later, size)
    if later != after or _is_padding(source, start + promised):
        return promised, None
    if promised:
        result.notes.append(f"the header promises {promised} bytes, {there} are there")
    return there, None


def _is_placeholder(promised: int, there: int) -> bool:
    """Whether a size was never meant: none, about the most that 32 bits hold, or far beyond what is there."""
    is_most = 0x7FFFF000 <= promised <= 0x80000100 or 0xFFFFF000 <= promised <= 0xFFFFFFFF
    return promised <= 0 or is_most or (promised >= 10**9 and there < promised // 2) or promised >= 1 << 62


def _is_chunk(name: bytes, size: int, left: int) -> bool:
    """Whether a name and a size are those of a chunk, and no samples."""
    is_text = len(name) == 4 and all(32 <= letter < 127 for letter in name)
    return name in _KNOWN or (is_text and 0 <= size <= left)


def _is_padding(source: Source, at: int) -> bool:
    """Whether nothing but zeros or a tag follows."""
    if at >= source.size or source.read(at, 11).startswith(_TAGS):
        return True
    while at < source.size:
        window = source.read(at, 1 << 16)
        if window.strip(b"\0"):
            return False
        at += len(window)
    return True


def missing_in_log(log: str) -> int:
    """Bytes that are missing of a file of another kind, by libsndfile's log: `BODY : 529200 (should be 264578)`."""
    found = re.search(r"^\s*[\w ]+?\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if not found:
        return 0
    promised, there = map(int, found.groups())
    return 0 if _is_placeholder(promised, there) or promised - there < _SLACK else promised - there
