"""Folders as people have them -> manifest.

Known layouts: LibriSpeech, VoiceBank-DEMAND and DEMAND, DNS-Challenge, ESC-50. Any other folder counts by the
names of its sub-folders: ``speech`` or ``clean``, ``noise``, ``rir``.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from dsn_lite import audio
from dsn_lite.audio.files import SUFFIXES
from dsn_lite.data.cache import progress, say
from dsn_lite.data.manifest import Entry
from dsn_lite.errors import InputError

VALID = 0.05  # share of the seconds of speech, and of noise, that validates
FOLDERS = {
    "speech": {"speech", "clean", "clean_fullband"},
    "noise": {"noise", "noises", "noise_fullband"},
    "rir": {"rir", "rirs", "impulse_responses"},
}
SPLIT_FOLDERS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
VOICEBANK = re.compile(r"clean_(trainset|testset)_?(28spk|56spk)?_?wav")
MIXED = re.compile(r"noisy|test_set|dev_testset")  # folders of mixtures: neither speech nor noise


def scan(folders: Iterable[str | Path], *, seed: int = 0, report: Callable[[str], None] = say) -> list[Entry]:
    """List the speech, noise and room responses below some folders.

    Where the layout says what trains and what tests, it is kept; the rest is split by speaker (noise: by recording or
    class), 5 % of the seconds to ``valid``; `seed` is that of the split. A file that cannot be read is left out, and
    `report` gets a line of it.
    """
    found: dict[Path, tuple[Entry, str] | None] = {}  # None: cannot be read
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name a folder with speech or noise in it")
        files = list(_walk(folder))
        if not files:
            raise InputError(f"{folder}: no sound files in it; name a folder with wav, flac, ogg or mp3 files")
        for file in progress(files, len(files), f"reading {folder.name}"):
            if file in found or (recognised := _recognise(file, folder)) is None:
                continue
            entry, group = recognised
            try:
                found[file] = replace(entry, seconds=_seconds(file)), group
            except InputError as error:
                report(f"left out: {error}")
                found[file] = None
        if not any(found.get(file) for file in files):
            is_damaged = any(file in found for file in files)
            reason = "no file in it can be read" if is_damaged else "nothing in it is recognised"
            raise InputError(
                f"{folder}: {reason}; put the files into folders named speech, noise and rir, "
                "or give the folder of LibriSpeech, VoiceBank-DEMAND, DNS-Challenge or ESC-50"
            )
    return _split([known for known in found.values() if known], seed)


def _seconds(file: Path) -> float:
    """How long a file is; InputError where it is not whole."""
    with audio.Reader(file) as reader:
        samples = reader.samples or reader.read().shape[1]
        if reader.damage:
            raise reader.damage
    return round(samples / reader.sample_rate, 3)


def _walk(folder: Path) -> Iterator[Path]:
    """Sound files below a folder, in the order of their names; links are followed, each folder once."""
    seen = set()
    for root, folders, files in os.walk(folder.resolve(), followlinks=True):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(root, name)


def _recognise(file: Path, folder: Path) -> tuple[Entry, str] | None:
    """(entry, what must not be torn apart by a split), or None. An empty split is one to be drawn."""
    path, root = str(file), folder.resolve()
    parents = [part.lower() for part in (root.name, *file.relative_to(root).parts[:-1])]
    named = (SPLIT_FOLDERS.get(part.split("-")[0]) for part in parents)
    split = next(filter(None, named), "")

    spoken = re.fullmatch(r"(\d+)-(\d+)-\d+", file.stem)
    if spoken and file.parent.name == spoken[2] and file.parent.parent.name == spoken[1]:
        split = split if split != "train" else ""  # train-clean-100 and the like: part of it may validate
        speaker = f"librispeech-{spoken[1]}"
        return Entry(path, "speech", split, "librispeech", speaker, "en", licence="CC BY 4.0"), speaker
    if VOICEBANK.fullmatch(parents[-1]):
        speaker = f"vctk-{file.stem.split('_')[0]}"
        split = "test" if "testset" in parents[-1] else ""
        return Entry(path, "speech", split, "voicebank", speaker, "en", licence="CC BY 4.0"), speaker
    if any(MIXED.match(part) for part in parents):
        return None
    if re.fullmatch(r"ch\d\d", file.stem):  # DEMAND: 16 microphones of one recording; one is enough
        scene = file.parent.name
        return (Entry(path, "noise", split, "demand", scene.lower()), scene) if file.stem == "ch01" else None
    table = _esc50(file.parent.parent / "meta" / "esc50.csv") if file.parent.name == "audio" else {}
    if file.name in table:
        category, recording = table[file.name]
        return Entry(path, "noise", split, "esc50", category, licence="CC BY-NC 3.0"), recording
    return _by_folder(file, parents, split)


def _by_folder(file: Path, parents: list[str], split: str) -> tuple[Entry, str] | None:
    """By the innermost folder that names a kind; a folder below it names the speaker or class."""
    for depth in range(len(parents) - 1, -1, -1):
        kind = next((kind for kind, names in FOLDERS.items() if parents[depth] in names), None)
        if kind is None:
            continue
        dns = parents[depth].endswith("_fullband") or (depth and parents[depth - 1] == "datasets")
        source = "dns" if dns else next((p for p in reversed(parents[:depth]) if p not in SPLIT_FOLDERS), "")
        below = [part for part in parents[depth + 1 :] if part not in SPLIT_FOLDERS]
        reader = re.search(r"reader_(\d+)", file.stem)  # DNS-Challenge's read speech
        speaker = f"reader-{reader[1]}" if reader else "/".join(below)
        return Entry(str(file), kind, split, source, speaker), f"{source}/{speaker}" if speaker else str(file)
    return None


@cache
def _esc50(table: Path) -> dict[str, tuple[str, str]]:
    """(class, original recording) of each clip in the table of ESC-50; empty where there is no table."""
    if not table.exists():
        return {}
    with open(table, newline="", encoding="utf-8-sig") as handle:
        return {row["filename"]: (row["category"], row["src_file"]) for row in csv.DictReader(handle)}


def _split(found: Sequence[tuple[Entry, str]], seed: int) -> list[Entry]:
    """Give ``train`` or ``valid`` to what has no split yet; where all of a kind is one speaker's, file by file."""
    valid: set[tuple[str, str]] = set()
    for kind in ("speech", "noise"):
        if any(entry.kind == kind and entry.split == "valid" for entry, _ in found):
            continue  # the folders bring their own
        if len({group for entry, group in found if entry.kind == kind and not entry.split}) == 1:
            found = [(entry, str(entry.file) if entry.kind == kind else group) for entry, group in found]
        groups: dict[str, float] = {}
        for entry, group in found:
            if entry.kind == kind and not entry.split:
                groups[group] = groups.get(group, 0.0) + entry.seconds
        order = sorted(groups, key=lambda group: hashlib.sha1(f"{seed}|{kind}|{group}".encode()).hexdigest())
        total, taken = sum(groups.values()), 0.0
        for group in order:
            if taken < VALID * total and taken + groups[group] <= 2 * VALID * total:
                taken += groups[group]
                valid.add((kind, group))
        if not taken and len(groups) > 1:  # few and long: the shortest
            valid.add((kind, min(order, key=lambda group: groups[group])))
    return [
        replace(entry, split=entry.split or ("valid" if (entry.kind, group) in valid else "train"))
        for entry, group in found
    ]


def lacking(entries: Iterable[Entry]) -> list[str]:
    """What a training will miss in a manifest, one line each: speech of both splits. Empty where nothing is missing."""
    splits = [entry.split for entry in entries if entry.kind == "speech"]
    lines = []
    if "train" not in splits:
        lines.append("no speech to train on; add a folder named speech, or give rows of the manifest the split train")
    if "valid" not in splits:
        cure = (
            "add a second recording, or cut this one in two" if len(splits) == 1 else "give some files the split valid"
        )
        lines.append(f"no speech to validate on, which every training does; {cure}")
    return lines


def shared_speakers(entries: Iterable[Entry]) -> list[str]:
    """Speakers that train and validate, which makes the validation look better than it is; their names."""
    splits: dict[str, set[str]] = {}
    for entry in entries:
        if entry.kind == "speech" and entry.speaker and not entry.speaker.endswith("unknown"):
            splits.setdefault(entry.speaker, set()).add(entry.split)
    return sorted(speaker for speaker, used in splits.items() if {"train", "valid"} <= used)
