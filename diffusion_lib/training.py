r"""Training: minimise the simple loss with Adam, keep a moving average, and survive interruption.

A run is a function of its seed. The order of the data is a seeded permutation per epoch, so the
step number alone says which samples come next; all noise comes from one random stream that the
trainer keeps to itself. A checkpoint holds everything a run is made of, so a resumed run and one
that never stopped agree in every bit (on one machine, with one thread count).

The moving average of the weights, with which one samples, is

.. math:: \theta^{\text{EMA}} \leftarrow d_n \theta^{\text{EMA}} + (1 - d_n)\, \theta, \qquad
          d_n = \min\Big(d, \frac{1 + n}{10 + n}\Big),

n the number of steps done before. The second entry lets a young average forget the initial weights.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .networks import build
from .objectives import simple_loss
from .prediction import get_prediction
from .schedule import NoiseSchedule

FORMAT = "diffusion_lib 1"
BLOCK = 50  # steps between two looks at the losses, which are read from the device in one piece
CHECKPOINTS = Path(__file__).parent / "checkpoints"


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device by name; "auto" is CUDA where there is one, else MPS, else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    if device == "auto":
        device = present[-1]
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device is {device!r}; it must be auto, {', '.join(present)}.") from None
    if resolved.type not in present:
        raise ValueError(f"device is {device!r}; this machine has {', '.join(present)}.")
    return resolved


# --- the random stream of a run -----------------------------------------------------------------


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators for the CPU and the device, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])


def _seeded_random_state(seed: int, device: torch.device) -> dict[str, Tensor]:
    outside = _random_state(device)
    torch.manual_seed(seed)
    seeded = _random_state(device)
    _set_random_state(outside, device)
    return seeded


@contextmanager
def _random_stream(states: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """Draw from states inside the block and keep how far it got; leave the caller's alone."""
    outside = _random_state(device)
    _set_random_state(states, device)
    try:
        yield
    finally:
        states.update(_random_state(device))
        _set_random_state(outside, device)


def _permutation(n: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """The order of the n samples in an epoch: int64 (n,), a function of (seed, epoch) alone."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randperm(n, generator=generator).to(device)


# --- the trainer --------------------------------------------------------------------------------


class Trainer:
    """Train model on data; ``train`` may be called again and again, ``save`` between the calls.

    Args:
        model: any module model(x_t, t); moved to the device and trained in place.
        schedule: the noise schedule.
        data: samples, (N, ...), floating point.
        prediction: what the model predicts: "eps", "x_0", "v" or "score".
        batch_size: samples per step. Batches run on across the ends of epochs, so every step has
            this many, also when it does not divide N or exceeds it.
        learning_rate: of Adam, reached linearly over the first ``warmup`` steps.
        warmup: number of those steps.
        ema_decay: d of the moving average, in [0, 1).
        gradient_clip: largest norm of the gradient, or None.
        seed: of the order of the data and of all noise. (The initial weights are the model's own:
            call ``torch.manual_seed`` before making it.)
        device: "auto", "cpu", "cuda" or "mps".

    Attributes:
        ema: the averaged model, in eval mode; sample with this one.
        step: number of steps done.
        losses: the loss of every step done, float32, on the CPU.

    Raises:
        ValueError: an argument is outside its range; nothing has been moved or changed then.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        data: Tensor,
        *,
        prediction: str = "eps",
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        warmup: int = 100,
        ema_decay: float = 0.999,
        gradient_clip: float | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
    ) -> None:
        self.settings: dict[str, Any] = {
            "prediction": prediction,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "warmup": warmup,
            "ema_decay": ema_decay,
            "gradient_clip": gradient_clip,
            "seed": seed,
        }
        _check_settings(self.settings)
        _check_data(data)
        self.device = resolve_device(device)
        self.schedule = schedule
        self.data = data.float().to(self.device)
        self.model = model.to(self.device)
        self.ema = copy.deepcopy(_bare(model)).eval().requires_grad_(False)
        # One fused call updates all weights; the arithmetic is that of torch's default Adam.
        self.optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
        self.step = 0
        self.losses = torch.empty(0)
        self._random = _seeded_random_state(seed, self.device)
        self._order: tuple[int, Tensor] | None = None  # (epoch, its permutation)

    def train(
        self,
        steps: int,
        *,
        progress: bool = True,
        callback: Callable[[Trainer], None] | None = None,
    ) -> Tensor:
        """Do this many more steps and return their losses, float32 (steps,).

        callback(trainer) runs after every 50 steps and after the last one; it may save, sample or
        draw without changing the run.

        Raises:
            ValueError: steps is not a positive integer.
            FloatingPointError: a loss is not finite. The steps before it stay recorded, but the
                weights are spoiled, and save() refuses to write them over a good checkpoint.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}; it must be a positive integer.")
        first = self.step
        self.model.train()
        with tqdm(total=steps, disable=not progress, unit="step") as bar:
            for done in range(0, steps, BLOCK):
                losses = self._block(min(BLOCK, steps - done))
                bar.update(len(losses))
                bar.set_postfix(loss=f"{losses.mean():.4f}", refresh=False)
                if callback is not None:
                    callback(self)
        return self.losses[first:]

    def _block(self, steps: int) -> Tensor:
        """Do a few steps without ever waiting for the device, then look at their losses."""
        weights: list[Tensor] = list(self.model.parameters())
        averages: list[Tensor] = list(self.ema.parameters())
        buffers = list(self.model.buffers())
        averaged_buffers = list(self.ema.buffers())
        losses = []
        with _random_stream(self._random, self.device):
            for step in range(self.step, self.step + steps):
                loss = simple_loss(
                    self.model,
                    self.schedule,
                    self.data[self._indices(step)],
                    prediction=self.settings["prediction"],
                )
                self.optimizer.zero_grad()
                loss.backward()
                if self.settings["gradient_clip"] is not None:
                    nn.utils.clip_grad_norm_(weights, self.settings["gradient_clip"])
                self.optimizer.param_groups[0]["lr"] = self._learning_rate(step)
                self.optimizer.step()
                with torch.no_grad():
                    torch._foreach_lerp_(averages, weights, 1 - self._decay(step))
                    if buffers:
                        torch._foreach_copy_(averaged_buffers, buffers)
                losses.append(loss.detach())
        return self._record(torch.stack(losses).float().cpu())

    def _indices(self, step: int) -> Tensor:
        """The samples of a batch: a window of the endless row of permutations, one per epoch."""
        n, start = len(self.data), step * self.settings["batch_size"]
        stop = start + self.settings["batch_size"]
        pieces = []
        for epoch in range(start // n, (stop - 1) // n + 1):
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, _permutation(n, self.settings["seed"], epoch, self.device)
            pieces.append(self._order[1][max(start - epoch * n, 0) : stop - epoch * n])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _learning_rate(self, step: int) -> float:
        warmup, rate = self.settings["warmup"], self.settings["learning_rate"]
        return rate * min(1.0, (step + 1) / (warmup + 1))

    def _decay(self, step: int) -> float:
        return min(self.settings["ema_decay"], (1 + step) / (10 + step))

    def _record(self, losses: Tensor) -> Tensor:
        good = int(losses.isfinite().int().cumprod(0).sum())
        self.losses = torch.cat([self.losses, losses[:good]])
        self.step += good
        if good < len(losses):
            raise FloatingPointError(
                f"the loss became {losses[good].item()} at step {self.step + 1}; go back to the "
                "last checkpoint, and try a smaller learning_rate (now "
                f"{self.settings['learning_rate']}) or gradient_clip=1.0, and look for very large "
                "values in the data."
            )
        return losses

    # --- checkpoints ---

    def save(self, path: str | Path, **notes: Any) -> None:
        """Write everything the run is made of; notes, plain values, go into its description.

        The file is replaced in one piece: whatever happens, path holds the old checkpoint or the
        new one.

        Raises:
            OSError: the file cannot be written; path is as it was.
            FloatingPointError: a weight is not finite; path is as it was.
        """
        tensors = _prefixed("model", _bare(self.model).state_dict())
        tensors |= _prefixed("random", self._random) | {"losses": self.losses}
        optimizer = self.optimizer.state_dict()
        for index, state in optimizer["state"].items():
            tensors |= _prefixed(f"optimizer.{index}", state)
        self._write(path, tensors, {"optimizer": optimizer["param_groups"], **notes})

    def export(self, path: str | Path, **notes: Any) -> None:
        """Write what sampling needs and no more: averaged weights, schedule and description.

        Raises: as save.
        """
        self._write(path, {}, notes)

    def _write(self, path: str | Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        for name, weight in itertools.chain(
            _bare(self.model).named_parameters(), self.ema.named_parameters()
        ):
            if not weight.isfinite().all():
                raise FloatingPointError(
                    f"{path} was not written: the weight {name} is not finite after step "
                    f"{self.step}."
                )
        tensors = tensors | _prefixed("ema", self.ema.state_dict())
        tensors["schedule.alpha_bar"] = torch.from_numpy(self.schedule.alpha_bar.copy())
        tensors["schedule.times"] = torch.from_numpy(self.schedule.times.copy())
        info = {
            "network": getattr(self.ema, "config", None),
            "step": self.step,
            "settings": self.settings,
            "data_shape": list(self.data.shape),
            "data_digest": _digest(self.data),
            "device": self.device.type,
            "torch": torch.__version__,
        }
        _write_atomically(Path(path), tensors, info | notes)

    @classmethod
    def resume(
        cls,
        path: str | Path,
        data: Tensor,
        *,
        model: nn.Module | None = None,
        device: str | torch.device = "auto",
    ) -> Trainer:
        """The trainer that save() wrote, ready to go on as if it had never stopped.

        Give model, of the same architecture, where it is not one of diffusion_lib.networks. On
        another kind of device the run goes on, but its noise is new there.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a whole checkpoint of a trainer, data are not the data it was
                trained on, or its weights do not fit model.
        """
        tensors, info = _read(path)
        if "losses" not in tensors:
            raise ValueError(
                f"{path} holds a model to sample from, not a run to resume; resume from the "
                "checkpoint that Trainer.save wrote."
            )
        _check_data(data)
        if list(data.shape) != info["data_shape"]:
            raise ValueError(
                f"data has shape {tuple(data.shape)}, but {path} was trained on "
                f"{tuple(info['data_shape'])}; resume with the same data."
            )
        if _digest(data.float()) != info["data_digest"]:
            raise ValueError(f"data are not the values {path} was trained on; resume with those.")
        model = _rebuild(model, tensors, info, "model", path)
        trainer = cls(model, _schedule(tensors), data, device=device, **info["settings"])
        _load_weights(trainer.ema, tensors, "ema", path)
        trainer.optimizer.load_state_dict(
            {
                "state": {
                    index: _unprefixed(f"optimizer.{index}", tensors)
                    for index in range(len(list(model.parameters())))
                    if f"optimizer.{index}.step" in tensors
                },
                "param_groups": info["optimizer"],
            }
        )
        trainer.step, trainer.losses = info["step"], tensors["losses"]
        stored = _unprefixed("random", tensors)
        if stored.keys() == trainer._random.keys():
            trainer._random = stored
        else:
            seed = trainer.settings["seed"] + trainer.step
            trainer._random = _seeded_random_state(seed, trainer.device)
        return trainer


def load_model(
    path: str | Path, *, model: nn.Module | None = None, device: str | torch.device = "auto"
) -> tuple[nn.Module, NoiseSchedule, dict[str, Any]]:
    """The averaged model in eval mode, its schedule, and the description of the run.

    Takes what Trainer.save or Trainer.export wrote. ``info["settings"]["prediction"]`` is what the
    model predicts and ``info["data_shape"][1:]`` the shape of one sample. Give model, of the same
    architecture, where it is not one of diffusion_lib.networks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole checkpoint, or its weights do not fit model.
    """
    tensors, info = _read(path)
    model = _rebuild(model, tensors, info, "ema", path)
    return model.to(resolve_device(device)).eval(), _schedule(tensors), info


def load_pretrained(
    name: str = "digits", *, device: str | torch.device = "auto"
) -> tuple[nn.Module, NoiseSchedule, dict[str, Any]]:
    """The model of that name that comes with the library, as load_model returns it.

    Raises:
        ValueError: there is none of that name.
    """
    present = sorted(file.stem for file in CHECKPOINTS.glob("*.safetensors"))
    if name not in present:
        raise ValueError(f"name is {name!r}; the library comes with {', '.join(present)}.")
    return load_model(CHECKPOINTS / f"{name}.safetensors", device=device)


# --- files --------------------------------------------------------------------------------------


def _write_atomically(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write beside path, force it to disk, then rename: path is never half a file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(tensors, {"format": FORMAT, "info": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{path} was not written: {error.strerror or error}.") from error


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description in a checkpoint; reading one can execute nothing."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} is a safetensors file, but not a checkpoint of diffusion_lib."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a checkpoint: {error}.") from None
    return tensors, json.loads(metadata["info"])


def _schedule(tensors: dict[str, Tensor]) -> NoiseSchedule:
    return NoiseSchedule(tensors["schedule.alpha_bar"].numpy(), tensors["schedule.times"].numpy())


def _rebuild(
    model: nn.Module | None,
    tensors: dict[str, Tensor],
    info: dict[str, Any],
    prefix: str,
    path: str | Path,
) -> nn.Module:
    """model, or else the network the description names, with the weights stored under prefix."""
    if model is None:
        if info["network"] is None:
            raise ValueError(
                f"{path} was trained with a network of your own; pass an instance as model."
            )
        model = build(info["network"])
    _load_weights(_bare(model), tensors, prefix, path)
    return model


def _load_weights(
    model: nn.Module, tensors: dict[str, Tensor], prefix: str, path: str | Path
) -> None:
    try:
        model.load_state_dict(_unprefixed(prefix, tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the weights in {path} do not fit the model: {reason}.") from None


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {
        name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)
    }


def _bare(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper, whose weights have their own names."""
    return getattr(model, "_orig_mod", model)


def _digest(data: Tensor) -> str:
    """A fingerprint of up to a thousand samples spread over the data."""
    rows = torch.linspace(0, len(data) - 1, min(len(data), 1000)).long()
    return hashlib.sha256(data[rows.to(data.device)].cpu().numpy().tobytes()).hexdigest()


# --- checks -------------------------------------------------------------------------------------


def _check_settings(settings: dict[str, Any]) -> None:
    get_prediction(settings["prediction"])
    clip = settings["gradient_clip"]
    for name, good, allowed in (
        ("batch_size", settings["batch_size"] >= 1, "a positive integer"),
        ("learning_rate", 0 < settings["learning_rate"] < math.inf, "positive and finite"),
        ("warmup", settings["warmup"] >= 0, "a number of steps, 0 or more"),
        ("ema_decay", 0 <= settings["ema_decay"] < 1, "in [0, 1)"),
        ("gradient_clip", clip is None or clip > 0, "positive, or None"),
        ("seed", settings["seed"] >= 0, "0 or more"),
    ):
        if not good:
            raise ValueError(f"{name} is {settings[name]}; it must be {allowed}.")


def _check_data(data: Tensor) -> None:
    if not isinstance(data, Tensor) or not data.is_floating_point():
        kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
        raise ValueError(f"data is {kind}; it must be a floating-point tensor of samples.")
    if data.ndim < 2 or data.numel() == 0:
        raise ValueError(
            f"data has shape {tuple(data.shape)}; it must be (N, ...), N samples of some size."
        )
    if not data.isfinite().all():
        raise ValueError("data holds values that are not finite.")
