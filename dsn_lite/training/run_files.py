"""What a run keeps in its folder: checkpoint, log and curve. Each is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from dsn_lite.audio.files import replacing
from dsn_lite.data import Corpus
from dsn_lite.errors import InputError, one_line
from dsn_lite.settings import build, changes
from dsn_lite.training.plan import Plan

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], notes: dict) -> None:
    """Replace a checkpoint; `notes` are plain values."""
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(serialise(own, {"notes": json.dumps(notes)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and notes of a checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kinds = {"step": int, "seconds_spent": float, "training": dict, "corpus": str}
        return tensors, {**notes, **{name: kind(notes[name]) for name, kind in kinds.items()}}
    except Exception as error:
        cure = "mend that, or start the run anew in another folder"
        raise InputError(f"{path}: cannot be read ({one_line(error)}); {cure}") from None


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimiser_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """What a checkpoint holds of the optimiser, by the number of the weight."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    return state


def changed(path: Path, notes: dict, plan: Plan, corpus: Corpus) -> str:
    """What is not as it was when a checkpoint was written, in words; what must not change is refused."""
    found = list(changes(build(type(plan), notes["training"], str(path)), plan))
    if fixed := [f"{key} was {old} and is {new}" for key, old, new, is_free in found if not is_free]:
        raise InputError(f"{path}: {'; '.join(fixed)}; put it back, or start the run anew in another folder")
    if plan.steps < notes["step"]:
        raise InputError(f"{path}: {notes['step']} steps are done; steps is {plan.steps}; give {notes['step']} or more")
    if notes["corpus"] != corpus.hash:
        other = f"corpus was {notes['corpus'][:10]} and is {corpus.hash[:10]}: other rows, or a file that is left out"
        raise InputError(f"{path}: {other}; resume with the manifest and files of its start")
    if notes.get("contents", corpus.cache.contents) != corpus.cache.contents:
        raise InputError(f"{path}: a file of {corpus.path} holds other sound now; resume with the files of its start")
    return ", ".join(f"{key} {new} (was {old})" for key, old, new, _ in found)


def make_folder(folder: Path) -> None:
    """Make the folder of a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be the folder of a run ({error.strerror}); name another one") from None


def read_log(path: Path) -> list[dict]:
    """Rows of a log. Half a line, of a run that was killed while it wrote, is none."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def write_log(path: Path, rows: list[dict]) -> None:
    """Replace a log by one with these rows."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))


def draw_curve(folder: Path, panels: Mapping[str, Sequence[str]]) -> None:
    """Draw the log of a run as `curve.png`, where matplotlib is installed."""
    try:
        from dsn_lite.plots.curves import training_curve
    except ImportError:  # a bare training machine
        return
    training_curve(read_log(folder / LOG), panels, folder / "curve.png")
