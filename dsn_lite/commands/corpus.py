"""``dsn-lite corpus DIR ... -o manifest.csv``: what the folders hold, as a manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from dsn_lite.audio.files import FOREIGN, SUFFIXES
from dsn_lite.commands._options import add_command, whole
from dsn_lite.data.cache import say
from dsn_lite.data.layouts import lacking, scan, shared_speakers
from dsn_lite.data.manifest import KINDS, SPLITS, Entry, write_manifest
from dsn_lite.errors import InputError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "corpus", run, help="list the speech and noise of folders in a manifest",
        description="List the speech, noise and room responses below some folders in a manifest (CSV) "
        "to train on. Knows LibriSpeech, VoiceBank-DEMAND, DNS-Challenge and ESC-50, and any folder with "
        "sub-folders named speech (or clean), noise and rir. Splits by speaker: about 5 % validates.",
    )  # fmt: skip
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder to look through")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="manifest to write")
    parser.add_argument("--seed", type=whole(0), default=0, help="another seed splits otherwise (default 0)")


def run(args: argparse.Namespace) -> int:
    """Write the manifest and print what it holds; 2 where files had to be left out, or something is lacking."""
    complaints: list[str] = []

    def report(line: str) -> None:
        complaints.append(line)
        say(line)

    if Path(args.output).suffix.lower() in SUFFIXES | FOREIGN:
        raise InputError(f"{args.output}: is the name of a sound; name a .csv file for the manifest")
    entries = scan(args.folders, seed=args.seed, report=report)
    write_manifest(entries, args.output)
    print(summary(entries))
    for line in lacking(entries):
        report(f"dsn-lite: {line}")
    if shared := shared_speakers(entries):
        say(f"dsn-lite: {', '.join(shared[:5])}: trains and validates, so the validation says nothing of other voices")
    return 2 if complaints else 0


def summary(entries: list[Entry]) -> str:
    """One line a kind and split: files, speakers (or classes) and hours."""
    lines = [f"{'kind':8}{'split':8}{'files':>8}{'speakers':>10}{'hours':>8}"]
    for kind in KINDS:
        for split in SPLITS:
            chosen = [entry for entry in entries if entry.kind == kind and entry.split == split]
            if chosen:
                speakers = len({(entry.source, entry.speaker) for entry in chosen if entry.speaker})
                hours = sum(entry.seconds for entry in chosen) / 3600
                lines.append(f"{kind:8}{split:8}{len(chosen):8}{speakers or '-':>10}{hours:8.2f}")
    return "\n".join(lines)
