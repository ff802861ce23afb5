"""Speak the sentences of `dsn_lite/audio/clips/clips.csv` and write the FLAC files beside it.

Needs the programs `flite` and `espeak-ng` (Debian's packages of the same names). The table is the recipe: this
script reads engine, options and text from it, and writes the engine's version and the length back.

    python tools/make_clips.py            make all files anew
    python tools/make_clips.py --check    speak again, compare with the files that are there, write nothing
"""

import argparse
import csv
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dsn_lite import audio

SAMPLE_RATE = 16000
LEVEL_DB = -26.0  # active level, relative to full scale
LEAD, TAIL = 0.25, 0.30  # seconds of silence around the speech
FADE = 0.02  # seconds, so that neither end clicks
TABLE = Path(__file__).resolve().parent.parent / "dsn_lite" / "audio" / "clips" / "clips.csv"


def version(engine: str) -> str:
    """The version number an engine reports of itself."""
    result = subprocess.run([engine, "--version"], check=False, capture_output=True, text=True)
    found = re.search(r"(?:version: flite-|text-to-speech: )(\S+)", result.stdout + result.stderr)
    return found.group(1) if found else "unknown"


def speak(engine: str, options: str, text: str) -> np.ndarray:
    """Let an engine say a sentence: float32 [samples] at 16 kHz, as it came."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        ends = {"flite": ["-t", text, "-o", str(path)], "espeak-ng": ["-w", str(path), text]}[engine]
        subprocess.run([engine, *shlex.split(options), *ends], check=True)
        spoken = audio.read(path)
    return audio.resample(spoken.wave[0], spoken.sample_rate, SAMPLE_RATE)


def finish(wave: np.ndarray) -> np.ndarray:
    """Remove what lies below 40 Hz, cut the silence to one length everywhere, fade the ends, set the level."""
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    wave = np.fft.irfft(spectrum * np.clip((hertz - 20) / 20, 0, 1), len(wave))
    loud = np.flatnonzero(np.abs(wave) > 0.003 * np.abs(wave).max())
    fade = round(FADE * SAMPLE_RATE)
    wave = wave[max(0, loud[0] - fade) : loud[-1] + fade]
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(fade) / fade)
    wave[:fade] *= ramp
    wave[-fade:] *= ramp[::-1]
    wave = wave * 10 ** ((LEVEL_DB - audio.active_level(wave, SAMPLE_RATE)) / 20)
    lead, tail = (np.zeros(round(seconds * SAMPLE_RATE)) for seconds in (LEAD, TAIL))
    return np.concatenate([lead, wave, tail]).astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Make the clips, or compare them; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args(arguments).check

    with open(TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    versions = {engine: version(engine) for engine in {row["engine"] for row in rows}}
    different = 0
    for row in rows:
        wave = finish(speak(row["engine"], row["options"], row["text"]))
        path = TABLE.parent / row["file"]
        if check:
            there = audio.read(path).wave[0]
            # 16 bits: half a step of rounding, and a little for another version of the resampler
            same = there.shape == wave.shape and np.abs(there - wave).max() < 1e-4
            different += not same
            print(f"{row['file']}: {'same' if same else 'DIFFERENT'}")
            continue
        audio.write(path, wave, SAMPLE_RATE, subtype="PCM_16")
        row["version"] = versions[row["engine"]]
        row["seconds"] = f"{len(wave) / SAMPLE_RATE:.2f}"
        print(f"{row['file']}: {row['seconds']} s, {row['engine']} {row['version']} {row['options']}")
    if not check:
        with open(TABLE, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
