"""Checkpoints: one file of plain tensors with a description; reading one can execute nothing.

A file is in the safetensors format. Its tensors are named ``ema.*`` (the averaged weights),
``schedule.*`` and, where a run can be resumed from it, ``model.*``, ``optimizer.*`` and the records
of the run. Its metadata hold the format and, as JSON, the description of the run. What a file says
is checked against its weights before anything is built or changed, and a file is written in one
piece: whatever stops the writer, the path holds the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .arguments import check_integer
from .networks import build
from .prediction import get_prediction
from .schedule import NoiseSchedule

FORMAT = "diffusion_lib 2"
FORMATS = (FORMAT, "diffusion_lib 1")  # of the first, models can be read, but no runs
CHECKPOINTS = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """What is in a file, its description and schedule checked.

    Attributes:
        path: the file.
        format: one of FORMATS.
        info: the description: network, step, settings, data_shape, and the notes.
        schedule: the noise schedule of the run.
        tensors: everything else, by name.
    """

    path: Path
    format: str
    info: dict[str, Any]
    schedule: NoiseSchedule
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors named ``prefix.*``, without the prefix."""
        start = f"{prefix}."
        return {
            name[len(start) :]: tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }

    def network(self, model: nn.Module | None = None) -> nn.Module:
        """model, or else a new network as the description says, if the averaged weights fit it.

        Raises:
            ValueError: they do not, or the description says no network and model is None.
        """
        weights = self.part("ema")
        if model is None and self.info["network"] is None:
            raise ValueError(
                f"{self.path} was trained with a network of your own; pass an instance as model."
            )
        if model is None:
            with reading(self.path):
                # A file cannot ask for more than it holds: no size in the description is larger
                # than the number of weights, no layers are more than the tensors, and the network
                # is sketched without memory for them.
                numbers = sum(weight.numel() for weight in weights.values())
                for name, value in self.info["network"].items():
                    size = len(value) if isinstance(value, list) else value
                    layers = name in ("depth", "blocks") or isinstance(value, list)
                    most = len(weights) if layers else numbers
                    if isinstance(size, int) and size > most:
                        what = "layers" if layers else "weights"
                        raise ValueError(f"{name} is {value!r:.60}, but there are {most} {what}")
                with torch.device("meta"):
                    sketch = build(self.info["network"])
                check_fit(sketch, weights, self.path)
                with torch.device("cpu"):
                    return build(self.info["network"]).float()  # as it was trained
        check_module(model)
        check_fit(model, weights, self.path)
        return model


# --- models -------------------------------------------------------------------------------------


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device by name; "auto" is CUDA where there is one, else MPS, else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    count = {"cpu": 1}
    if torch.cuda.is_available():
        count["cuda"] = torch.cuda.device_count()
    if torch.backends.mps.is_available():
        count["mps"] = 1
    if isinstance(device, str) and device == "auto":
        device = list(count)[-1]
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device is {device!r}; it must be auto, {', '.join(count)}.") from None
    if (resolved.index or 0) >= count.get(resolved.type, 0):
        present = ", ".join(f"{kind}:{i}" for kind, n in count.items() for i in range(n))
        raise ValueError(f"device is '{device}'; this machine has {present}.")
    return resolved


def load_model(
    path: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "auto"
) -> tuple[nn.Module, NoiseSchedule, dict[str, Any]]:
    """The averaged model in eval mode, its schedule, and the description of the run.

    Takes what Trainer.save or Trainer.export wrote. ``model.prediction`` is what the model
    predicts, where the samplers look, and ``info["data_shape"][1:]`` the shape of one sample. Give
    model, of the same architecture, where it is not one of diffusion_lib.networks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole checkpoint, or its weights do not fit model, which is as it
            was then.
    """
    device = resolve_device(device)
    checkpoint = read(path)
    model = checkpoint.network(model)
    bare(model).load_state_dict(checkpoint.part("ema"))
    name_prediction(model, checkpoint.info["settings"]["prediction"])
    return model.to(device).eval(), checkpoint.schedule, checkpoint.info


def name_prediction(model: nn.Module, prediction: str) -> None:
    """Let the model say in ``prediction`` what it predicts, where the samplers look.

    A layer or a method of that name stays; then the samplers have to be told.
    """
    if isinstance(getattr(bare(model), "prediction", ""), str):
        vars(bare(model))["prediction"] = prediction


def pretrained_names() -> list[str]:
    """The names of the models that come with the library."""
    return sorted(file.stem for file in CHECKPOINTS.glob("*.safetensors"))


def load_pretrained(
    name: str = "digits", *, device: str | torch.device = "auto"
) -> tuple[nn.Module, NoiseSchedule, dict[str, Any]]:
    """The model of that name that comes with the library, as load_model returns it.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in pretrained_names():
        raise ValueError(
            f"name is {name!r}; the library comes with {', '.join(pretrained_names())}."
        )
    return load_model(CHECKPOINTS / f"{name}.safetensors", device=device)


# --- files --------------------------------------------------------------------------------------


def write(
    path: str | Path,
    schedule: NoiseSchedule,
    info: dict[str, Any],
    parts: Mapping[str, Tensor | Mapping[str, Tensor]],
) -> None:
    """Write parts, tensors by name or by prefix and name, beside path, and then rename the file.

    Raises:
        OSError: the file cannot be written.
        ValueError: the description is not plain JSON.
    """
    path = Path(path)
    try:
        description = json.dumps(info)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} was not written: notes must be plain values; {error}.") from None
    tensors: dict[str, Tensor] = {}
    for prefix, part in parts.items():
        if isinstance(part, Tensor):
            tensors[prefix] = part
        else:
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in part.items()}
    tensors["schedule.alpha_bar"] = torch.from_numpy(schedule.alpha_bar.copy())
    tensors["schedule.times"] = torch.from_numpy(schedule.times.copy())
    # Copies, because safetensors takes no two names for one memory (tied weights).
    copies = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(copies, {"format": FORMAT, "info": description})
    _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    """Write beside path, force it to disk, then rename: path is never half a file."""
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):
            kept = "; the one from before is still there" if path.is_file() else ""
            raise OSError(f"{path} was not written: {error.strerror or error}{kept}.") from error
        raise


def read(path: str | Path) -> Checkpoint:
    """What is in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole checkpoint of diffusion_lib.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in FORMATS:
                raise ValueError(
                    f"{path} is a safetensors file, but not a checkpoint of diffusion_lib."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a checkpoint: {error}.") from None
    with reading(path):
        info = json.loads(metadata["info"])
        _check_info(info)
        schedule = NoiseSchedule(
            tensors.pop("schedule.alpha_bar").numpy(), tensors.pop("schedule.times").numpy()
        )
    return Checkpoint(path, metadata["format"], info, schedule, tensors)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Whatever a damaged or crafted file leads to inside the block is said in one sentence."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it lacks {error}.") from None
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} is damaged: {reason}.") from None


# --- checks -------------------------------------------------------------------------------------


def check_fit(model: nn.Module, stored: dict[str, Tensor], path: str | Path) -> None:
    """Raise ValueError, before any weight is changed, where a name or a shape differs."""
    own = {name: tuple(tensor.shape) for name, tensor in bare(model).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    for name in own | found:
        if own.get(name) != found.get(name):
            raise ValueError(
                f"the weights in {path} do not fit the model: {name} is "
                f"{found.get(name, 'absent')} in the file and {own.get(name, 'absent')} "
                "in the model."
            )


def bare(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper, whose weights have their own names."""
    return getattr(model, "_orig_mod", model)


def check_module(model: object) -> None:
    """Raise ValueError unless the model is a torch module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {type(model).__name__}; it must be a torch.nn.Module.")


def _check_info(info: dict[str, Any]) -> None:
    """Raise where a description is not one that a trainer writes."""
    get_prediction(info["settings"]["prediction"])
    if not isinstance(info["network"], dict | None):
        raise ValueError(f"its network is {info['network']!r:.60}")
    check_integer("its step", info["step"], least=0, most=2**63 - 1)
    if len(info["data_shape"]) < 2:
        raise ValueError(f"its data_shape is {info['data_shape']!r:.60}")
    for length in info["data_shape"]:
        check_integer("a length in its data_shape", length, most=2**63 - 1)
