"""Make write, rename and read fail at a random call of a command, again and again, and look at what is left.

    python tests/faults.py COMMAND FOLDER TIMES SEED

A run of COMMAND without a fault counts its calls. Then each of TIMES runs, in a process of its own, meets a fault at a call
drawn at random: that call fails, or it and all after it (a disk that is full stays full), or the process is killed in the
middle of it. A write that fails has written half. What is found wrong is printed as JSON, one run a line.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure
from safetensors.torch import load_file
from tqdm import tqdm

from dsn_lite import cli
from dsn_lite.data import rirs

CALLS = ("write", "rename", "read")


class Injector:
    """Counts the calls on files below `roots`; the one with the number `at` fails, in the manner `how`."""

    def __init__(self, roots: list[Path], at: int | None, how: str):
        self.roots, self.at, self.how = [str(root.resolve()) for root in roots], at, how
        self.count, self.hit = 0, ""

    def is_watched(self, path) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.realpath(os.fspath(path)).startswith(tuple(self.roots))

    def call(self, kind: str, path, half: Callable[[], object] = lambda: None) -> None:
        """Note a call; where its time has come, do half of it and fail."""
        self.count += 1
        if self.at is None or self.count < self.at or (self.count > self.at and self.how == "once"):
            return
        self.hit = self.hit or f"{kind} {Path(path).name}"
        half()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = {"write": errno.ENOSPC, "rename": errno.EACCES, "read": errno.EIO}[kind]
        raise OSError(number, os.strerror(number), str(path))

    def install(self) -> None:
        """Put this in the way of Python's files, of libsndfile and of safetensors."""
        watch, call, opened = self.is_watched, self.call, io.open

        def open_(file, mode="r", *args, **options):
            if not watch(file):
                return opened(file, mode, *args, **options)
            if not set(mode) & set("wax+"):
                call("read", file)
            return _File(opened(file, mode, *args, **options), file, call)

        builtins.open = io.open = open_

        def renaming(function):
            def rename(source, target, *args, **options):
                if watch(target):
                    call("rename", target)
                return function(source, target, *args, **options)

            return rename

        os.replace, os.rename = renaming(os.replace), renaming(os.rename)
        sync = os.fsync

        def fsync(number):
            if watch(path := os.readlink(f"/proc/self/fd/{number}")):
                call("write", path)
            sync(number)

        os.fsync = fsync
        self._install_soundfile()
        self._install_safetensors()

    def _install_soundfile(self) -> None:
        sound, watch, call = soundfile.SoundFile, self.is_watched, self.call

        def wrapped(function, kind):
            def run(self, *args, **options):
                name = os.fsdecode(self.name) if isinstance(self.name, str | bytes | os.PathLike) else ""
                if name and watch(name):
                    half = lambda: function(self, args[0][: len(args[0]) // 2]) if kind == "write" else None
                    try:
                        call(kind, name, half)
                    except OSError:
                        raise soundfile.LibsndfileError(2, f"Error in {name!r}: ") from None
                return function(self, *args, **options)

            return run

        sound.write, sound.read = wrapped(sound.write, "write"), wrapped(sound.read, "read")

    def _install_safetensors(self) -> None:
        watch, call = self.is_watched, self.call

        def reading(function):
            def read(path, *args, **options):
                if watch(path):
                    call("read", path)
                return function(path, *args, **options)

            return read

        for name, module in list(sys.modules.items()):
            for function in ("load_file", "safe_open"):
                if name.startswith("dsn_lite") and hasattr(module, function):
                    setattr(module, function, reading(getattr(module, function)))


class _File:
    """A file whose calls are noted."""

    def __init__(self, file, path, call):
        self._file, self._path, self._call = file, path, call

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __iter__(self):
        return iter(self._file)

    def write(self, data):
        def half():
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._call("write", self._path, half)
        return self._file.write(data)

    def read(self, *args):
        self._call("read", self._path)
        return self._file.read(*args)

    def readinto(self, target):
        self._call("read", self._path)
        return self._file.readinto(target)


def run(argv: list[str], injector: Injector, folder: Path) -> tuple[int, str, int, str]:
    """Run the command in a process of its own: status as a shell has it, what it said, calls, and where the fault was."""
    said, told = folder / "said.txt", folder / "told.json"
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(out), "w", buffering=1) for _ in range(2))
        status = 1
        try:
            injector.install()
            status = cli.main(argv)
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        number = os.open(told, os.O_WRONLY | os.O_CREAT)
        os.write(number, json.dumps([injector.count, injector.hit]).encode())
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count, hit = json.loads(told.read_text()) if told.exists() else (0, "killed")
    return status, said.read_text(errors="replace"), count, hit


# ----------------------------------------------------------------------------------------------------- the three commands
class Case:
    """A command in a folder: what it is given lies in ``in``, what it makes in ``out``."""

    again: list[str] | None = None

    def __init__(self, folder: Path):
        self.folder, self.given, self.out = folder, folder / "in", folder / "out"
        self.reference: dict[str, bytes] = {}

    def argv(self) -> list[str]:
        """Arguments of the command line."""
        raise NotImplementedError

    def before(self) -> None:
        """Lay out what stands there before each run."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def fits(self, path: Path) -> bool:
        """Whether a file that is not as in the run without a fault is whole nevertheless."""
        return False

    def problems(self, *, was_killed: bool) -> list[str]:
        """What is wrong with what lies in ``out``."""
        found = []
        for path in sorted(self.out.rglob("*")):
            name = path.relative_to(self.out).as_posix()
            if path.is_dir() or (was_killed and path.name.startswith(".dsn-lite-")):
                continue
            if path.read_bytes() != self.reference.get(name) and not self._is_whole(path):
                found.append(f"{name} is not whole")
        return found

    def _is_whole(self, path: Path) -> bool:
        try:
            return self.fits(path)
        except Exception:
            return False

    def lost(self) -> list[str]:
        """What is missing after the command was given again, without a fault."""
        found = {path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()}
        return [f"{name} is lost" for name in self.reference if name not in found]


class Enhance(Case):
    """Two files, a picture of the gates and a report; one of the results has been there before."""

    OLD = b"what stood there before"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.given.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name, channels in (("a.wav", 1), ("b.flac", 2)):
            wave = 0.1 * rng.standard_normal((9000, channels)) * (np.arange(9000)[:, None] > 3000)
            soundfile.write(self.given / name, wave, 16_000)

    def argv(self) -> list[str]:
        out = self.out
        return ["enhance", str(self.given), "-o", str(out), "--report", str(out / "r.json"), "--gates", str(out / "g.png")]

    def before(self) -> None:
        super().before()
        (self.out / "a.wav").write_bytes(self.OLD)

    def fits(self, path: Path) -> bool:
        if path.suffix == ".json":
            return bool(json.loads(path.read_text()))
        return path.name == "a.wav" and path.read_bytes() == self.OLD


class Evaluate(Case):
    """Two pairs and the table of their scores."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        rng = np.random.default_rng(0)
        lines = ["file,speaker,noise,snr_db,seconds"]
        for number in range(2):
            wave = rng.standard_normal(16_000) * 0.1 * (np.sin(np.arange(16_000) / 2000) > 0)
            for kind, sound in (("clean", wave), ("noisy", wave + 0.02 * rng.standard_normal(16_000))):
                (self.given / kind).mkdir(parents=True, exist_ok=True)
                soundfile.write(self.given / kind / f"t{number}.flac", sound, 16_000)
            lines.append(f"t{number}.flac,s{number},hiss,5,1")
        (self.given / "pairs.csv").write_text("\n".join(lines) + "\n")

    def argv(self) -> list[str]:
        return ["evaluate", str(self.given), "--json", str(self.out / "e.json"), "--jobs", "1"]

    def fits(self, path: Path) -> bool:
        found, whole = json.loads(path.read_text()), json.loads(self.reference["e.json"])
        return found.keys() == whole.keys() and len(found["per_file"]) + len(found["errors"]) >= 2


class Train(Case):
    """A run of three steps on a small corpus; every second one decodes the corpus itself."""

    CONFIG = (
        "network: {channels: [[2, 2], [3, 3], [4, 4]], heads: [1, 1], head_width: [2, 2], hidden: [4, 4], groups: [1, 1],\n"
        "  group_width: [4, 4], policy_bands: 8, policy_width: 8}\n"
        "steps: 3\nbatch: 2\nseconds: 0.5\nlr: 1e-3\nwarmup_steps: 2\nvalid_items: 1\nvalid_every: 2\nsave_every: 1\n"
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.turn = 0
        self.given.mkdir(parents=True)
        (self.given / "config.yaml").write_text(self.CONFIG)
        time = np.arange(16_000) / 16_000
        rows = ["path,kind,split,source,speaker,language,seconds,licence"]
        for number in range(6):
            wave = 0.2 * np.sin(2 * np.pi * (150 + 40 * number) * time) * (np.sin(9 * time) > 0)
            soundfile.write(self.given / f"{number}.flac", wave, 16_000)
            kind, split = "speech" if number < 4 else "noise", "valid" if number % 2 else "train"
            rows.append(f"{number}.flac,{kind},{split},made,s{number},en,1,CC0")
        (self.given / "manifest.csv").write_text("\n".join(rows) + "\n")
        self.cache = folder / "cache"
        os.environ["DSN_LITE_CACHE"] = str(self.cache)
        self.cache.mkdir()
        responses = np.zeros((rirs.ROOMS, rirs.RESPONSES, 100), np.float32)
        responses[..., 0] = 1
        for method in ("image-source", "decay"):  # simulating rooms takes a minute
            np.savez(self.cache / f"rooms-{method}-1-{rirs.SEED}-{rirs.ROOMS}.npz", responses=responses)

    def argv(self) -> list[str]:
        given = self.given
        return ["train", str(given / "config.yaml"), "--data", str(given / "manifest.csv"), "--out", str(self.out / "run"),
                "--workers", "0", "--resume"]  # fmt: skip

    def before(self) -> None:
        super().before()
        self.turn += 1
        if self.turn % 2:
            for path in self.cache.glob("audio*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def fits(self, path: Path) -> bool:
        if path.suffix == ".safetensors":
            return bool(load_file(path))
        if path.name == "log.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            return path.read_bytes()[-1:] in (b"\n", b"") and [row["step"] for row in rows] == [2, 3][: len(rows)]
        return path.suffix == ".json" and bool(json.loads(path.read_text()))

    def lost(self) -> list[str]:
        name = "run/model.safetensors"
        is_same = (self.out / name).exists() and (self.out / name).read_bytes() == self.reference[name]
        return super().lost() + ([] if is_same else ["the weights are not those of the run without a fault"])


CASES = {"enhance": Enhance, "evaluate": Evaluate, "train": Train}


def digest(folder: Path) -> str:
    """SHA-1 of names and contents below a folder."""
    found = hashlib.sha1()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


def draw_nothing(self, path, **_) -> None:
    """In place of drawing, which takes most of the time and is not what fails: a picture of one dot."""
    head = "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    data = "0000000a49444154789c6360000000020001487afe2d0000000049454e44ae426082"
    with open(path, "wb") as file:
        file.write(bytes.fromhex(head) + bytes.fromhex(data))


def inject(command: str, folder: Path, times: int, seed: int) -> Iterator[dict]:
    """Runs with a fault: number of the call, how, status, what was hit, and the problems found."""
    import dsn_lite

    Figure.savefig = draw_nothing
    case, draw = CASES[command](folder), random.Random(seed)
    roots = [folder, Path(dsn_lite.__file__).parent / "weights"]
    case.before()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        cli.main(case.argv())  # here, so that what is loaded and compiled is there already in each process
    case.before()
    status, said, calls, _ = run(case.argv(), Injector(roots, None, ""), folder)
    assert status == 0, said
    case.reference = {
        path.relative_to(case.out).as_posix(): path.read_bytes() for path in case.out.rglob("*") if path.is_file()
    }
    given = digest(case.given)
    for _ in tqdm(range(times), desc=command, disable=None):
        at, how = draw.randint(1, calls), draw.choice(("once", "stays", "kill"))
        case.before()
        status, said, _, hit = run(case.argv(), Injector(roots, at, how), folder)
        problems = case.problems(was_killed=status < 0)
        if digest(case.given) != given:
            problems.append("an input has changed")
        if status not in (0, 2, -signal.SIGKILL):
            problems.append(f"status {status}")
        if "Traceback" in said or (status == 2 and "dsn-lite: " not in said):
            problems.append("no line that says what is wrong")
        status_again, said_again, _, _ = run(case.argv(), Injector(roots, None, ""), folder)
        if status_again:
            problems.append(f"not to be mended: {said_again[-500:]}")
        else:
            problems += case.lost()
        row = {"at": at, "how": how, "status": status, "hit": hit, "problems": problems}
        yield {**row, "said": said[-3000:]} if problems else row


if __name__ == "__main__":
    for line in inject(sys.argv[1], Path(tempfile.mkdtemp(dir=sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])):
        print(json.dumps(line), flush=True)
