"""What must stay as it is while the code moves: sounds, gates, counts, recipes, renders and three steps of each trainer.

Enhancers are made here, with random weights of a fixed seed, so that new weights change nothing below. The file beside
this one holds small statistics, not hashes of waves: floating point differs a little between processors. After a change
that is meant to change them, look at the difference and write it anew:

    python tests/test_golden.py            all of it
    python tests/test_golden.py macs train-enhance enhance-tiny
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from networks import random_network

import dsn_lite
from dsn_lite import audio
from dsn_lite.audio import clips, noises
from dsn_lite.cli import main
from dsn_lite.data import Corpus, Mixtures, recipe, render
from dsn_lite.data import rirs as rooms
from dsn_lite.data.manifest import Entry, write_manifest
from dsn_lite.network import weights

GOLDEN = Path(__file__).with_name("golden.json")
ENHANCERS = ("tiny", "base", "base, static", "base, static only")
"""Shapes of :mod:`networks`."""
OTHERS = ("separator", "slim-demucs")
"""Shipped networks of other kinds."""
SHORT = {"steps": 3, "batch": 2, "seconds": 1.0, "rate": 0.002, "valid_items": 2, "valid_every": 3, "seed": 1}
TRAINERS = {
    "enhance": {"network": {"preset": "tiny"}},
    "policy": {"way": "benefit"},
    "slim-demucs": {"network": {"channels": [8, 8, 12, 16], "router_bands": 6, "router_width": 6}, "router_from": 0.3},
    "separate": {"network": {"channels": 12, "hidden": 16, "across": 6, "blocks": 1}, "gate_from": 0.3, "valid_items": 6},
}
"""The smallest configuration of each task; that of a policy starts from a random network."""


def wave_statistics(wave: np.ndarray) -> list[float]:
    """RMS in dB, peak, and RMS in dB of four bands and four parts of a wave [samples]."""
    spectrum = np.abs(np.fft.rfft(wave.astype(float))) / len(wave)
    parts = [np.square(part).mean() for part in np.array_split(wave.astype(float), 4)]
    bands = [np.square(band).sum() for band in np.array_split(spectrum, 4)]
    return [float(np.abs(wave).max()), *(10 * np.log10(np.array([np.square(wave).mean(), *bands, *parts]) + 1e-9)).tolist()]


def noisy(i: int) -> np.ndarray:
    """One of three mixtures of what ships, 2 s [samples]."""
    clean = clips.load(clips.names()[3 * i])[:32_000]
    noise = noises.synthesise(("rain", "fan", "traffic")[i], 2, seed=i)
    return audio.mix_at_snr(clean, noise, (10, 2, -3)[i])


def enhanced(name: str) -> list:
    """What a random network makes of the three mixtures under gates that are given, and how often its own gates open."""
    network, found = random_network(name), []
    for i in range(3):
        learned = network.enhance(noisy(i), 16_000)
        gates = (np.random.default_rng(i).random(learned.gates.shape) < 0.5).astype(np.uint8)
        result = network.enhance(noisy(i), 16_000, policy=gates)
        found.append({
            "wave": wave_statistics(result.wave), "mmacs": result.mmacs_per_second,
            "gates": learned.gates.mean(0).tolist() if network.gate_names else [],
        })  # fmt: skip
    return found


def shipped(name: str) -> list:
    """What a shipped network of another kind makes of the three mixtures: the waves, and how often each width ran."""
    network, found = dsn_lite.load(name), []
    for i in range(3):
        if network.KIND == "separator":
            result = network.separate(noisy(i), 16_000)
            waves, chosen = result.waves, result.widths[:, None]
        else:
            result = network.enhance(noisy(i), 16_000)
            waves, chosen = [result.wave], result.gates
        chosen = np.asarray(chosen, dtype=float)
        found.append({
            "waves": [wave_statistics(np.asarray(wave).ravel()) for wave in waves],
            "gates": chosen.reshape(-1, chosen.shape[-1]).mean(0).tolist() if chosen.size else [],
            "mmacs": float(result.mmacs_per_second),
        })  # fmt: skip
    return found


def small_corpus(folder: Path) -> Corpus:
    """A corpus of eight clips and four noises, and a bank of twenty rooms that takes no simulation."""
    entries = []

    def add(name: str, wave: np.ndarray, kind: str, split: str) -> None:
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
        entries.append(Entry(str(folder / f"{name}.wav"), kind, split, kind, name, "", len(wave) / 16e3, "CC0"))

    for i, name in enumerate(clips.names()[:8]):
        add(name, clips.load(name), "speech", "valid" if i > 5 else "train")
    for i, name in enumerate(("fan", "rain", "hum", "traffic")):
        add(f"noise-{name}", noises.synthesise(name, 4, seed=i), "noise", "valid" if i > 2 else "train")
    write_manifest(entries, folder / "manifest.csv")
    rng = np.random.default_rng(0)
    decay = rng.normal(size=(rooms.ROOMS, rooms.RESPONSES, 800)) * np.exp(-np.arange(800) / 100) / 10
    decay[..., 0] = 1
    for method in ("image-source", "decay"):
        name = f"rooms-{method}-1-{rooms.SEED}-{rooms.ROOMS}.npz"
        np.savez(folder / name, responses=decay.astype(np.float32))
    return Corpus.open(folder / "manifest.csv", folder)


def numbers(value) -> dict:
    """The numbers of a nested structure: every integer in order, and of the others how many, their sum and their swing."""
    whole, other = [], []

    def walk(value) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif isinstance(value, (int, np.integer)):
            whole.append(int(value))
        elif isinstance(value, (float, np.floating)):
            other.append(float(value))

    walk(value)
    swing = float(np.dot(other, np.cos(np.arange(len(other)))))  # sees an exchange of two numbers
    return {"whole": whole, "count": len(other), "sum": float(np.sum(other)), "swing": swing}


def drawn(corpus: Corpus) -> list:
    """Twenty recipes, and what each renders to."""
    found = []
    for index in range(20):
        item = recipe(corpus, 1, index, 2.0, "train" if index % 4 else "valid")
        plain = {name: value for name, value in dataclasses.asdict(item).items() if name != "corpus"}
        found.append({"recipe": numbers(plain), "render": [wave_statistics(wave) for wave in render(corpus, item)]})
    item = Mixtures(corpus, "valid", 1.0, seed=4, size=3)[1]
    return [*found, {"snr": float(item["snr"]), "noisy": wave_statistics(item["noisy"].numpy())}]


def counted() -> dict:
    """The tables of `dsn-lite macs`, as text without the white space."""
    import contextlib
    import io

    tables = {}
    for name in ("tiny", "base", "paper"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(["macs", "--model", name]) == 0
        tables[name] = [" ".join(line.split()) for line in out.getvalue().splitlines() if line.strip()][:-1]
    return tables


def trained(task: str, corpus: Corpus, folder: Path) -> dict:
    """The log of three steps of a trainer, without what the clock says."""
    values = {"task": task, **SHORT, **TRAINERS[task]}
    folder.mkdir()
    if task == "policy":
        weights.save(random_network("tiny"), folder / "trunk.safetensors")
        values["start_from"] = str(folder / "trunk.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSN_LITE_CACHE", str(corpus.path.parent))
        arguments = ["train", str(folder / "config.yaml"), "--data", str(corpus.path), "--out", str(folder / "run")]
        assert main([*arguments, "--workers", "0", "--device", "cpu"]) == 0
    row = json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])
    return {name: value for name, value in row.items() if "second" not in name and "hour" not in name}


def cases(wanted=lambda name: True) -> dict:
    """Each case by name, as a function of a folder to work in and of the corpus."""
    made = {f"enhance-{name}": lambda folder, corpus, name=name: enhanced(name) for name in ENHANCERS}
    made |= {f"enhance-{name}": lambda folder, corpus, name=name: shipped(name) for name in OTHERS}
    made["macs"] = lambda folder, corpus: counted()
    made["recipes"] = lambda folder, corpus: drawn(corpus)
    made |= {f"train-{task}": lambda folder, corpus, task=task: trained(task, corpus, folder) for task in TRAINERS}
    return {name: make for name, make in made.items() if wanted(name)}


def differences(expected, found, where: str = "") -> list[str]:
    """Where two nested structures differ: text and whole numbers at all, others by more than rounding may."""
    if isinstance(expected, dict) and isinstance(found, dict):
        gone = [f"{where}: {sorted(expected.keys() ^ found.keys())} in one alone"] if expected.keys() ^ found.keys() else []
        return gone + [line for key in expected.keys() & found.keys()
                       for line in differences(expected[key], found[key], f"{where}/{key}")]  # fmt: skip
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = zip(expected, found, strict=True)
        return [line for i, (a, b) in enumerate(pairs) for line in differences(a, b, f"{where}/{i}")]
    if isinstance(expected, float) or isinstance(found, float):
        loose = 0.02 if "gate" in where or "width" in where else 0.005  # a gate near its threshold may flip
        close = found == pytest.approx(expected, rel=5e-3, abs=loose)
        return [] if close else [f"{where}: {expected} is now {found}"]
    return [] if expected == found else [f"{where}: {expected} is now {found}"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "ROOMS", 20)
        yield small_corpus(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", cases())
def test_golden(name, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "ROOMS", 20)
    expected = json.loads(GOLDEN.read_text())
    found = json.loads(json.dumps(cases()[name](tmp_path / "work", corpus)))
    assert not differences(expected[name], found)


def test_the_golden_file_holds_what_there_is():
    assert set(json.loads(GOLDEN.read_text())) == set(cases())


def test_a_difference_is_seen():
    assert differences({"a": [1, 0.5]}, {"a": [1, 0.501]}) == []
    for other in ({"a": [2, 0.5]}, {"a": [1, 0.52]}, {"a": [1]}, {"b": [1, 0.5]}, {"a": [1, None]}):
        assert differences({"a": [1, 0.5]}, other)


def rounded(value):
    """Floats to six significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    rooms.ROOMS = 20
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        made = small_corpus(Path(scratch))
        for key, make in cases(lambda name: not sys.argv[1:] or name in sys.argv[1:]).items():
            known[key] = rounded(json.loads(json.dumps(make(Path(scratch) / key, made))))
    lines = [f" {json.dumps(key)}: {json.dumps(known[key])}" for key in cases()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
