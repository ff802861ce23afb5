"""The engine of the page against PyTorch, tensor by tensor, run by node; and the table it reads."""

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dsn_lite.audio.offset import DECAY, block_offset
from dsn_lite.audio.spectral import HOP, stft
from dsn_lite.errors import InputError
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network

pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets import table as tables

HERE = Path(__file__).parent
FRAMES = 50
BASE = Config.preset("base")
CONFIGS = {
    "base": BASE,
    "tiny": Config.preset("tiny"),
    "one block, strides 4 2, long kernels": Config(
        channels=((5, 3), (6, 7)), strides=(4, 2), kernels=(7, 5), blocks=1, heads=(1, 2), head_width=(3, 5),
        hidden=(6, 9), groups=(1, 3), group_width=(5, 6), policy_bands=9, policy_width=7,
    ),
    "three blocks, strides 2 4 1 2": Config(
        channels=((4, 4), (6, 2), (5, 6), (7, 9)), strides=(2, 4, 1, 2), kernels=(3, 3, 5, 3), blocks=3, heads=(2, 1),
        head_width=(4, 8), hidden=(8, 12), groups=(2, 1), group_width=(4, 10), policy_bands=11, policy_width=10,
    ),
    "static": BASE.static(),
    "static-only": BASE.static_only(),
}  # fmt: skip


def signal(frames: int = FRAMES) -> np.ndarray:
    """Noise that comes and goes, with a pause and an offset [frames * HOP]."""
    rng = np.random.default_rng(5)
    time = np.arange(frames * HOP) / HOP
    wave = rng.standard_normal(frames * HOP) * 0.1 * np.sin(time / 3) ** 2 + 0.02
    wave[(time > 20) & (time < 24)] = 0
    return wave.astype(np.float32)


def write(folder: Path, network: Network, wave: np.ndarray, shift: float = 0.0) -> None:
    """What node reads."""
    packed = tables.pack(network)
    (folder / "table.json").write_text(json.dumps({**packed.header, "shift": shift}))
    (folder / "weights.bin").write_bytes(packed.weights)
    (folder / "samples.bin").write_bytes(wave.astype("<f4").tobytes())
    (folder / "products.wasm").write_bytes(tables.products())
    (folder / "engine.js").write_text(tables.engine())


def run(node: str, folder: Path, kernel: str, job: str):
    """What run_engine.js says."""
    command = [node, str(HERE / "run_engine.js"), str(folder / "engine.js"), str(folder), kernel, job]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trace(node: str, folder: Path, kernel: str) -> dict[str, np.ndarray]:
    """Every tensor of every frame [T, n], by name."""
    names = run(node, folder, kernel, "trace")
    flat = np.fromfile(folder / "trace.bin", "<f4").reshape(-1, sum(length for _, length in names))
    ends = np.cumsum([length for _, length in names])
    return {name: flat[:, end - length : end] for (name, length), end in zip(names, ends, strict=True)}


def reference(network: Network, wave: np.ndarray, shift: float = 0.0) -> dict[str, np.ndarray]:
    """The same tensors from PyTorch, frame by frame, in double precision.

    In single precision its own Fourier transform is off by more than the bound: the compressed value of a bin that is
    nearly zero depends on it with an endless slope.
    """
    network = copy.deepcopy(network).double()
    found: dict[str, list] = {}

    def note(name, tensor):
        found.setdefault(name, []).append(tensor.detach().reshape(-1).numpy().copy())

    frames = len(wave) // HOP
    with torch.inference_mode():
        spectrum, state, shown = stft(torch.from_numpy(blocked(wave)))[None, :frames], None, {}
        ups = [layer.name for layer in network.layers if layer.kind == "up"]
        for layer in network.layers:
            watch(layer, shown)
        if network.policy is not None:
            features = network.policy.features
            network.policy.features = lambda *parts: shown.setdefault("policy input", features(*parts))
        answers = []
        for t in range(frames):
            shown.clear()
            output = network(spectrum[:, t : t + 1], state=state, shift=shift)
            skips = {"static": [], "dynamic": []}
            for layer in network.layers:
                for part in ("static", "dynamic"):
                    if (name := f"{layer.name} {part}") not in shown:
                        continue
                    value = shown[name]
                    if layer.kind == "down":
                        skips[part].append(value)
                    elif layer.kind == "bands":
                        skips[part].pop()
                    elif layer.name in ups:
                        value = value + skips[part].pop()
                    note(name, value)
            note("features", shown["features"])
            state = output.state
            number = 0
            for static, dynamic in state.recurrent:
                for each in (static, dynamic):
                    if each is not None:
                        note(f"state {number}", each)
                        number += 1
            if network.policy is not None:
                note(f"state {number}", state.policy)
                note("policy input", shown["policy input"])
                note("margins", output.margins)
                note("gates", output.gates)
            answers.append(output.spectrum)
    blocks = synthesis(torch.cat(answers, 1)[0])
    return {**{name: np.stack(rows) for name, rows in found.items()}, "wave": blocks}


def blocked(wave: np.ndarray) -> np.ndarray:
    """Samples less their running mean, in double precision, one by one."""
    mean, out = float(wave[:HOP].mean(dtype=np.float64)), np.empty(len(wave))
    for i, sample in enumerate(wave.astype(np.float64)):
        mean = DECAY * mean + (1 - DECAY) * sample
        out[i] = sample - mean
    return out


def watch(layer, shown: dict) -> None:
    """Let the block of a layer leave its results in `shown`."""
    small, refine = layer.block.small, layer.block.refine

    def first(value):
        return value[0] if isinstance(value, tuple) else value

    def seen_small(x, *rest):
        if layer.name == "encoder 1":
            shown["features"] = x
        result = small(x, *rest)
        if layer.block.static is not None:
            shown[f"{layer.name} static"] = first(result)
        return result

    def seen_refine(x, *rest):
        result = refine(x, *rest)
        shown[f"{layer.name} dynamic"] = first(result)
        return result

    layer.block.small, layer.block.refine = seen_small, seen_refine


def synthesis(spectrum: torch.Tensor) -> np.ndarray:
    """Samples of each frame's hop before [T, HOP] of a spectrum [T, F]."""
    from dsn_lite.audio.spectral import window

    frames = torch.fft.irfft(spectrum) * window(dtype=torch.float64)
    before = torch.cat([torch.zeros(1, HOP), frames[:-1, HOP:]])
    return (before + frames[:, :HOP]).numpy()


def worst(found: dict, expected: dict) -> tuple[float, str]:
    """The largest difference of any tensor over that tensor's own scale, and which it is."""
    assert found.keys() == expected.keys()
    differences = []
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, name
        differences.append((float(np.abs(found[name] - tensor).max() / np.abs(tensor).max()), name))
    return max(differences)


# ------------------------------------------------------------------------------------------------------------- exactness
def test_the_offset_is_blocked_as_everywhere():
    wave = signal(6)
    np.testing.assert_allclose(block_offset(wave.reshape(-1, HOP))[0].reshape(-1), blocked(wave), atol=1e-7)


@pytest.mark.parametrize("kernel", ["plain", "fast"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_that_of_pytorch(name, kernel, random_enhancer, node, tmp_path):
    network = random_enhancer(CONFIGS[name], seed=1)
    wave = signal()
    write(tmp_path, network, wave)
    found, expected = trace(node, tmp_path, kernel), reference(network, wave)
    if network.policy is not None:
        np.testing.assert_array_equal(found["gates"], expected["gates"])
        assert 0.1 < expected["gates"].mean() < 0.9  # gates move
        assert (expected["gates"].std(0) > 0).mean() > 0.8
    difference, tensor = worst(found, expected)
    assert difference < 1e-5, tensor


def test_a_changed_weight_is_seen(random_enhancer, node, tmp_path):
    """Each array of the table times 1.01 moves some tensor by more than the bound of the test above."""
    network = random_enhancer(CONFIGS["tiny"], seed=1)
    write(tmp_path, network, signal(8))
    moved = run(node, tmp_path, "fast", "teeth")
    arrays = [part for row in tables.fold(network) for part in (row.static, row.dynamic) if part]
    assert len(moved) == sum(map(len, [*arrays, tables.fold_policy(network)]))
    assert min(moved.values()) > 1e-5, min(moved, key=moved.get)


def test_closed_frames_take_less_than_half_of_open_ones(random_enhancer, node, tmp_path):
    """Ratios of processor time in one run; a frame has 16,000 microseconds."""
    network = random_enhancer(CONFIGS["base"], seed=1)
    write(tmp_path, network, signal())
    times = run(node, tmp_path, "fast", "time")
    print(times)
    least = times["least"]
    assert least["closed"] < 0.5 * least["open"]
    assert least["closed"] < least["learned"] < least["open"]


# --------------------------------------------------------------------------------------------------------------- kernel
def test_the_module_is_what_its_source_builds_to(tmp_path, node):
    """Compiled again, the kernel computes the same bits; by the same compiler it is the same file."""
    if not shutil.which("clang") or not (shutil.which("wasm-ld") or shutil.which("wasm-ld-14")):
        pytest.skip("no clang with wasm-ld here (apt install clang lld): the kernel is not built again")
    source = tables.FOLDER / "products.c"
    written = re.search(r"^//   (clang .*(?:\n//    .*)*)", source.read_text(), re.MULTILINE)[1]
    command = written.replace("\n//", " ").split()
    built = tmp_path / "products.wasm"
    places = {"products.c": str(source), "products.wasm": str(built)}
    command = [places.get(part, part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "unable to create target" in done.stderr:
        pytest.skip("this clang knows no WebAssembly")
    assert done.returncode == 0, done.stderr
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout
    if "clang version 14." in version:
        assert built.read_bytes() == tables.products()
    run_both = subprocess.run(
        [node, str(HERE / "run_kernel.js"), str(built), str(tables.FOLDER / "products.wasm")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run_both.returncode == 0, run_both.stderr
    assert json.loads(run_both.stdout) == {"same": True}
    assert len(tables.products()) < 5_000


def test_refuses_a_network_without_a_table():
    with pytest.raises(InputError, match="table of layers"):
        tables.pack(torch.nn.Linear(2, 2))
    assert isinstance(Network(CONFIGS["tiny"]), Network)
