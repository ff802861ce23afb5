"""What a command reads and what it writes: which files, under which names, and nothing of the user's replaced."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from dsn_lite.audio.files import FOREIGN, SUFFIXES
from dsn_lite.errors import InputError, one_line


def find(given: Iterable[str | Path], out: Path) -> tuple[dict[Path, Path], list[InputError]]:
    """Each sound file with the name of its result below the output folder, and what cannot be done, a line each."""
    names: dict[Path, Path] = {}
    failed: list[InputError] = []
    for path in map(Path, given):
        if not path.is_dir():
            names.setdefault(path, _result_name(path))
            continue
        found, foreign = _sound_files(path, out, failed)
        for file in foreign:
            cure = "convert it to WAV or FLAC, for example with ffmpeg"
            failed.append(InputError(f"{file}: {file.suffix[1:]} cannot be read; {cure}"))
        if not found and not foreign:
            failed.append(InputError(f"{path}: no sound files in this folder; name files, or another folder"))
        for file in found:
            names.setdefault(file, file.relative_to(path))
    return names, failed


def _result_name(path: Path) -> Path:
    """That of the file; a pipe, which has no suffix, gives a WAV."""
    try:
        is_pipe = path.parts[:2] == ("/", "dev") or not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        is_pipe = False
    return Path(f"{path.name}.wav" if is_pipe and not path.suffix else path.name)


def _sound_files(folder: Path, out: Path, failed: list[InputError]) -> tuple[list[Path], list[Path]]:
    """Sound files below `folder`, those that can be read and those that cannot.

    Links are followed, but not in circles; left out are hidden files and what lies below `out`: results of an earlier run.
    """

    def say(error: OSError) -> None:
        reason = error.strerror or error
        failed.append(InputError(f"{error.filename}: this folder cannot be read ({reason}); change its permissions"))

    found, foreign, skipped = [], [], _identity(out)
    above = {str(folder): (os.path.realpath(folder),)}
    for where, folders, names in os.walk(folder, onerror=say, followlinks=True):
        here, kept = Path(where), []
        for name in sorted(folders):
            real = os.path.realpath(here / name)
            is_skipped = skipped is not None and _identity(real) == skipped
            if name[0] != "." and real not in above[where] and not is_skipped:
                above[os.path.join(where, name)] = (*above[where], real)
                kept.append(name)
        folders[:] = kept
        files = [here / name for name in sorted(names) if name[0] != "."]
        found += [file for file in files if file.suffix.lower() in SUFFIXES]
        foreign += [file for file in files if file.suffix.lower() in FOREIGN]
    return found, foreign


class Outputs:
    """The names that a command writes to. None is a file that it reads (a `model` of the user's too), none is given twice.

    >>> outputs = Outputs(["a.wav"])
    >>> outputs.claim("out/a.wav", "a.wav")
    PosixPath('out/a.wav')
    """

    def __init__(self, inputs: Iterable[str | Path], model: str | None = None):
        weights = [Path(model), Path(model).with_suffix(".json")] if model and model.endswith(".safetensors") else []
        self._inputs: dict[tuple[int, int], Path] = {}
        self._takers: dict[str, str] = {}
        for path in (*inputs, *weights):
            if identity := _identity(path):
                self._inputs[identity] = Path(path)

    def claim(self, output: str | Path, taker: str | Path) -> Path:
        """The name, for what comes of `taker` (a file, or the option it is asked for with)."""
        output = Path(output)
        identity = _identity(output)
        if identity in self._inputs:
            raise InputError(f"{self._inputs[identity]}: would be overwritten by {output}; choose another output")
        if output.is_dir():
            raise InputError(f"{output}: is a folder; give the name of a file")
        if output.suffix == ".json" and output.with_suffix(".safetensors").exists():
            raise InputError(f"{output}: is the card of a network; give the results another name")
        first = self._takers.setdefault(os.path.normcase(os.path.realpath(output)), str(taker))
        if first != str(taker):
            raise InputError(f"{taker}: {output} is the result of {first} already; rename one or run twice")
        return output

    def claim_each(self, wanted: dict[Path, list[Path]], failed: list[InputError]) -> dict[Path, list[Path]]:
        """Of inputs with their results those whose results can all be had; of each of the others `failed` gets an error."""
        claimed = {}
        for source, results in wanted.items():
            try:
                claimed[source] = [self.claim(result, source) for result in results]
            except InputError as error:
                failed.append(error)
        return claimed


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def picture_names(picture: str | None, names: list[Path]) -> list[Path | None]:
    """One name of a picture for each file.

    >>> [str(name) for name in picture_names("g.png", [Path("a.wav"), Path("b/c.wav"), Path("a.flac"), Path("b-c.wav")])]
    ['g-a-wav.png', 'g-b-c.png', 'g-a-flac.png', 'g-b-c-2.png']
    """
    if picture is None:
        return [None] * len(names)
    whole = Path(picture)
    if len(names) == 1:
        return [whole]
    parts = ["-".join(name.with_suffix("").parts) for name in names]
    suffixes = [{name.suffix for name, other in zip(names, parts, strict=True) if other == part} for part in parts]
    taken: set[str] = set()
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        stem = first = f"{part}-{name.suffix[1:]}" if len(suffixes[number]) > 1 else part
        count = 2
        while stem.casefold() in taken:
            stem, count = f"{first}-{count}", count + 1
        taken.add(stem.casefold())
        parts[number] = stem
    return [whole.with_name(f"{whole.stem}-{stem}{whole.suffix}") for stem in parts]


def complain(error: Exception) -> None:
    """Print the line of an error."""
    print(f"dsn-lite: {one_line(error)}", file=sys.stderr, flush=True)
