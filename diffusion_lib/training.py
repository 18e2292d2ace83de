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
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    """The states that torch.manual_seed would set, without touching any generator in use."""
    kinds = dict.fromkeys(("cpu", device.type))
    return {kind: torch.Generator(kind).manual_seed(seed).get_state() for kind in kinds}


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


@contextmanager
def _interrupt_held_back() -> Iterator[list[int]]:
    """Note Ctrl-C in the list, which the block may look at, and raise it when the block is left.

    A second Ctrl-C does not wait. Where Ctrl-C is someone else's business nothing changes.
    """
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if noted:
        raise KeyboardInterrupt


# --- the trainer --------------------------------------------------------------------------------


class Trainer:
    """Train model on data; ``train`` may be called again and again, ``save`` between the calls.

    Args:
        model: any module model(x_t, t); moved to the device and trained in place.
        schedule: the noise schedule.
        data: samples, (N, ...), floating point. Data that are float32 and on the device already
            are used where they lie, not copied; leave them as they are while training.
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
        ValueError: an argument is not what is allowed; nothing has been moved or changed then.
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
        _check_settings(**self.settings)
        _check_kind("model", model, nn.Module)
        _check_kind("schedule", schedule, NoiseSchedule)
        _check_data(data)
        self.device = resolve_device(device)
        self.schedule = schedule
        self.data = data.float().to(self.device)
        self.model = model.to(self.device)
        self.ema = copy.deepcopy(_bare(model)).eval().requires_grad_(False)
        # One fused call updates all weights; the arithmetic is that of torch's default Adam.
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=fused)
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

        Ctrl-C waits for the step at hand, and an error that the model raises undoes it: either
        way the trainer is then a run of ``step`` steps, which may be saved or go on.

        Raises:
            ValueError: steps is not a positive integer.
            FloatingPointError: a loss is not finite. The steps before it stay recorded, but the
                weights are spoiled, and save() refuses to write them over a good checkpoint.
        """
        if not _is_whole(steps, 1):
            raise ValueError(f"steps is {steps!r}; it must be a positive integer.")
        first = self.step
        self.model.train()
        with tqdm(total=steps, disable=not progress, unit="step") as bar:
            for done in range(0, steps, BLOCK):
                with _interrupt_held_back() as interrupted:
                    losses = self._block(min(BLOCK, steps - done), interrupted)
                bar.update(len(losses))
                bar.set_postfix(loss=f"{losses.mean():.4f}", refresh=False)
                if callback is not None:
                    callback(self)
        return self.losses[first:]

    def _block(self, steps: int, interrupted: list[int]) -> Tensor:
        """Do a few steps without ever waiting for the device, then look at their losses."""
        weights: list[Tensor] = list(self.model.parameters())
        averages: list[Tensor] = list(self.ema.parameters())
        buffers = list(self.model.buffers())
        averaged_buffers = list(self.ema.buffers())
        losses: list[Tensor] = []
        try:
            with _random_stream(self._random, self.device):
                while len(losses) < steps and not interrupted:
                    step = self.step + len(losses)
                    loss = self._differentiate(step, buffers, averaged_buffers)
                    if self.settings["gradient_clip"] is not None:
                        nn.utils.clip_grad_norm_(weights, self.settings["gradient_clip"])
                    self.optimizer.param_groups[0]["lr"] = self._learning_rate(step)
                    self.optimizer.step()
                    with torch.no_grad():
                        torch._foreach_lerp_(averages, weights, 1 - self._decay(step))
                        if buffers:
                            torch._foreach_copy_(averaged_buffers, buffers)
                    losses.append(loss)
        finally:
            recorded = self._record(losses)
        return recorded

    def _differentiate(
        self, step: int, buffers: list[Tensor], averaged_buffers: list[Tensor]
    ) -> Tensor:
        """The loss of this step and, in .grad, its gradient; an error leaves nothing behind."""
        before = _random_state(self.device)
        try:
            loss = simple_loss(
                self.model,
                self.schedule,
                self.data[self._indices(step)],
                prediction=self.settings["prediction"],
            )
            self.optimizer.zero_grad()
            loss.backward()
        except BaseException:
            _set_random_state(before, self.device)
            if buffers:  # those of the average are still what they were after the last step
                torch._foreach_copy_(buffers, averaged_buffers)
            raise
        return loss.detach()

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

    def _record(self, steps: list[Tensor]) -> Tensor:
        losses = torch.stack(steps).float().cpu() if steps else torch.empty(0)
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
        """Write everything the run is made of; notes, plain values, join its description.

        The file is replaced in one piece: whatever happens, path holds the old checkpoint or the
        new one.

        Raises:
            OSError: the file cannot be written.
            ValueError: a note has a name that the description uses, or is not plain JSON.
            FloatingPointError: a weight is not finite.
        """
        tensors = _prefixed("model", _bare(self.model).state_dict())
        tensors |= _prefixed("random", self._random) | {"losses": self.losses}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer.{index}", state)
        self._write(path, tensors, notes)

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
        for name in info.keys() & notes.keys():
            raise ValueError(f"{name} is not a name for a note; the description of a run uses it.")
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
        tensors, info, schedule = _read(path)
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
        if _digest(data) != info["data_digest"]:
            raise ValueError(f"data are not the values {path} was trained on; resume with those.")
        device = resolve_device(device)
        model = _network(model, info, path)
        weights, averages = _unprefixed("model", tensors), _unprefixed("ema", tensors)
        for stored in (weights, averages):
            _check_fit(model, stored, path)
        with _reading(path):
            optimizer = _optimizer_state(model, tensors)
            random = _random_state_to_resume(tensors, info, device)
            if tensors["losses"].shape != (info["step"],):
                raise ValueError(f"it has done {info['step']} steps but holds other losses")
        _bare(model).load_state_dict(weights)
        trainer = cls(model, schedule, data, device=device, **info["settings"])
        trainer.ema.load_state_dict(averages)
        trainer.optimizer.load_state_dict(
            {
                "state": optimizer,
                "param_groups": trainer.optimizer.state_dict()["param_groups"],
            }
        )
        trainer.step, trainer.losses = info["step"], tensors["losses"]
        trainer._random = random
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
        ValueError: it is not a whole checkpoint, or its weights do not fit model, which is as it
            was then.
    """
    device = resolve_device(device)
    tensors, info, schedule = _read(path)
    model = _network(model, info, path)
    averages = _unprefixed("ema", tensors)
    _check_fit(model, averages, path)
    _bare(model).load_state_dict(averages)
    return model.to(device).eval(), schedule, info


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


def _write_atomically(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write beside path, force it to disk, then rename: path is never half a file."""
    try:
        description = json.dumps(info)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} was not written: notes must be plain values; {error}.") from None
    # Copies, because safetensors takes no two names for one memory (tied weights).
    copies = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(copies, {"format": FORMAT, "info": description})
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
            raise OSError(f"{path} was not written: {error.strerror or error}.") from error
        raise


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Whatever a damaged or crafted file leads to inside the block is said in one sentence."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it lacks {error}.") from None
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} is damaged: {reason}.") from None


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], NoiseSchedule]:
    """The tensors, description and schedule in a checkpoint; reading one can execute nothing."""
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
    with _reading(path):
        info = json.loads(metadata["info"])
        _check_info(info)
        schedule = NoiseSchedule(
            tensors["schedule.alpha_bar"].numpy(), tensors["schedule.times"].numpy()
        )
    return tensors, info, schedule


def _network(model: nn.Module | None, info: dict[str, Any], path: str | Path) -> nn.Module:
    """model, or else a new network as the description says."""
    if model is not None:
        _check_kind("model", model, nn.Module)
        return model
    if info["network"] is None:
        raise ValueError(
            f"{path} was trained with a network of your own; pass an instance as model."
        )
    with _reading(path):
        return build(info["network"])


def _check_fit(model: nn.Module, stored: dict[str, Tensor], path: str | Path) -> None:
    """Names and shapes of the weights are compared before any of them is changed."""
    own = {name: tuple(tensor.shape) for name, tensor in _bare(model).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    for name in own | found:
        if own.get(name) != found.get(name):
            raise ValueError(
                f"the weights in {path} do not fit the model: {name} is "
                f"{found.get(name, 'absent')} in the file and {own.get(name, 'absent')} "
                "in the model."
            )


def _optimizer_state(model: nn.Module, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Adam's state of every weight that has one, of the weight's shape."""
    states = {}
    for index, weight in enumerate(model.parameters()):
        state = _unprefixed(f"optimizer.{index}", tensors)
        shapes = {"step": (), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
        if state and {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise ValueError(f"the optimizer's state {index} does not fit its weight")
        if state:
            states[index] = state
    return states


def _random_state_to_resume(
    tensors: dict[str, Tensor], info: dict[str, Any], device: torch.device
) -> dict[str, Tensor]:
    """The random stream stored, or a new one on another kind of device than it was for."""
    stored = _unprefixed("random", tensors)
    if stored.keys() != {"cpu", device.type}:
        return _seeded_random_state(info["settings"]["seed"] + info["step"], device)
    for kind, state in stored.items():
        torch.Generator(kind).set_state(state)  # raises where it is no such state
    return stored


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
    count = min(len(data), 1000)
    rows = torch.arange(count, device=data.device) * (len(data) - 1) // max(count - 1, 1)
    return hashlib.sha256(data[rows].float().cpu().numpy().tobytes()).hexdigest()


# --- checks -------------------------------------------------------------------------------------


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _check_settings(
    *,
    prediction: Any,
    batch_size: Any,
    learning_rate: Any,
    warmup: Any,
    ema_decay: Any,
    gradient_clip: Any,
    seed: Any,
) -> None:
    get_prediction(prediction)
    rate, decay, clip = learning_rate, ema_decay, gradient_clip
    for name, value, good, allowed in (
        ("batch_size", batch_size, _is_whole(batch_size, 1), "a positive integer"),
        ("learning_rate", rate, _is_positive(rate) and rate < math.inf, "positive and finite"),
        ("warmup", warmup, _is_whole(warmup, 0), "a number of steps, 0 or more"),
        ("ema_decay", decay, decay == 0 or (_is_positive(decay) and decay < 1), "in [0, 1)"),
        ("gradient_clip", clip, clip is None or _is_positive(clip), "positive, or None"),
        ("seed", seed, _is_whole(seed, 0), "an integer, 0 or more and below 2**63"),
    ):
        if not good:
            raise ValueError(f"{name} is {value!r}; it must be {allowed}.")


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {type(value).__name__}; it must be a {kind.__name__}.")


def _check_info(info: dict[str, Any]) -> None:
    """Raise where a description is not one that Trainer._write wrote."""
    _check_settings(**info["settings"])
    shape = info["data_shape"]
    for name, good in (
        ("network", info["network"] is None or isinstance(info["network"], dict)),
        ("step", _is_whole(info["step"], 0)),
        ("data_shape", len(shape) >= 2 and all(_is_whole(length, 1) for length in shape)),
        ("data_digest", isinstance(info["data_digest"], str)),
    ):
        if not good:
            raise ValueError(f"its {name} is {info[name]!r}")


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
