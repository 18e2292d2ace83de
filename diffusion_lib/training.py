r"""Training: minimise an objective with Adam, keep a moving average, and survive interruption.

A run is a function of its seed and settings. Everything random in a step, which samples, which
steps t, which noise, which labels are dropped, is drawn for the whole batch by a generator that is
seeded anew from the seed of the run and the number of the step. Nothing has to be remembered, so a
resumed run and one that never stopped agree in every bit, and micro-batches and processes take
slices of one batch, so the run is the same, up to the rounding of sums, however it is divided.

The same bits need the same machine, torch release, device and number of threads: elsewhere sums
are taken in another order, and another kind of device draws other noise from the same seed. On a
GPU some of torch's kernels add in an order that varies, unless
``torch.use_deterministic_algorithms(True)`` is set.

The moving average of the weights, with which one samples, is

.. math:: \theta^{\text{EMA}} \leftarrow d_n \theta^{\text{EMA}} + (1 - d_n)\, \theta, \qquad
          d_n = \min\Big(d, \frac{1 + n}{10 + n}\Big),

n the number of steps done before. The second entry lets a young average forget the initial weights.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import itertools
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint
from .arguments import check_callable, check_choice, check_integer, check_number
from .checkpoint import bare, check_module, load_model, load_pretrained, resolve_device
from .networks import Network
from .objectives import OBJECTIVES, draw_noise
from .prediction import check_readable, get_prediction
from .schedule import NoiseSchedule, check_schedule

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Samples", "Trainer", "load_model", "load_pretrained", "resolve_device"]

BLOCK = 50  # steps between two looks at the losses, which are read from the device in one piece
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Objective = Callable[..., Tensor]
"""What is minimised, called as `objectives.simple_loss` is: a mean over the rows of a batch.

Were it a sum, micro-batches and processes would not add up to what the whole batch gives.
"""


class Samples(Protocol):
    """Samples that need not be in memory, such as data.Stored."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...), as of a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The samples of these rows, int64 on the CPU, as a float32 tensor on the CPU."""


# --- what is random in a run --------------------------------------------------------------------


def _number(seed: int, *place: object) -> int:
    """A number below 2^56 that is decided by the seed and the place where it is used."""
    digest = hashlib.sha256(" ".join(map(str, (seed, *place))).encode()).digest()
    return int.from_bytes(digest[:7], "little")


def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of the n samples in an epoch: int64 (n,), a function of (seed, epoch) alone."""
    generator = torch.Generator("cpu").manual_seed(_number(seed, "order", epoch))
    return torch.randperm(n, generator=generator, device="cpu")


def _seed_generators(number: int, device: torch.device) -> None:
    """Seed the generators that a network on this device may draw from, and no others."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Leave the caller's random numbers as if nothing had been drawn inside the block."""
    before = torch.get_rng_state()
    if device.type == "cuda":
        before_on_device = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        before_on_device = torch.mps.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if device.type == "cuda":
            torch.cuda.set_rng_state(before_on_device, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(before_on_device)


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
        model: any module model(x_t, t), or model(x_t, t, labels) where labels are given, its
            weights float32; moved to the device and trained in place.
        schedule: the noise schedule.
        data: samples, (N, ...), floating point. Data that are float32 and on the device already
            are used where they lie, not copied; leave them as they are while training. Samples too
            many for memory are any object with ``shape``, ``len`` and ``[rows]``: each batch is
            read from it.
        labels: the class of each sample, int64 (N,), or None. K classes are 0..K-1; K is what one
            of our networks was made with, and for any other one more than the largest label.
        objective: what is minimised: a name in objectives.OBJECTIVES, or a function called as they
            are, such as ``partial(min_snr_loss, gamma=3.0)`` or
            ``partial(weighted_loss, weight=my_weight)``. It is to be a mean over the batch.
        prediction: what the model predicts: "eps", "x_0", "v" or "score".
        label_dropout: the share of labels replaced by K, "no label", so that the network learns
            what classifier-free guidance compares; without labels there is nothing to replace.
        batch_size: samples per step. Batches run on across the ends of epochs, so every step has
            this many, also when it does not divide N or exceeds it.
        accumulate: micro-batches into which a step divides its batch, one after the other, to need
            less memory.
        precision: of the network's arithmetic: "fp32", "bf16" or "fp16". Weights, loss, optimiser
            and average are float32 always; with fp16 the gradient is scaled, and a step on which it
            overflows changes no weight.
        learning_rate: of Adam, reached linearly over the first ``warmup`` steps.
        warmup: number of those steps.
        ema_decay: d of the moving average, in [0, 1).
        gradient_clip: largest norm of the gradient, or None. (math.inf changes no gradient, but its
            norm is recorded.)
        seed: of the order of the data and of all noise. (The initial weights are the model's own:
            call ``torch.manual_seed`` before making it.)
        device: "auto", "cpu", "cuda" or "mps".
        accelerator: an ``accelerate.Accelerator``, to train in all of its processes, on its device.
            Each takes its slice of the batch; the first one alone shows bars and writes files.

    Attributes:
        ema: the averaged model, in eval mode; sample with this one. Its ``prediction`` is what it
            predicts, and the samplers look there.
        step: number of steps done.
        losses: the loss of every step done, float32, on the CPU.
        gradient_norms: the norm of the gradient in every step done, before clipping, likewise; NaN
            where gradient_clip is None, because nobody has looked.
        saved: the path and step of the last checkpoint, or None.
        writes: whether this process is the one that writes files.

    Raises:
        ValueError: an argument is not what is allowed; nothing has been moved or changed then.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        data: Tensor | Samples,
        *,
        labels: Tensor | None = None,
        objective: str | Objective = "simple",
        prediction: str = "eps",
        label_dropout: float = 0.1,
        batch_size: int = 128,
        accumulate: int = 1,
        precision: str = "fp32",
        learning_rate: float = 1e-3,
        warmup: int = 100,
        ema_decay: float = 0.999,
        gradient_clip: float | None = None,
        seed: int = 0,
        device: str | torch.device = "auto",
        accelerator: Accelerator | None = None,
    ) -> None:
        self.settings = _settings(
            objective=objective if isinstance(objective, str) else None,
            prediction=prediction,
            label_dropout=label_dropout,
            batch_size=batch_size,
            accumulate=accumulate,
            precision=precision,
            learning_rate=learning_rate,
            warmup=warmup,
            ema_decay=ema_decay,
            gradient_clip=gradient_clip,
            seed=seed,
        )
        batch_size, accumulate = self.settings["batch_size"], self.settings["accumulate"]
        self._objective = _objective(objective)
        check_module(model)
        check_schedule(schedule)
        if accelerator is not None:
            _check_accelerator(accelerator, device)
        check_readable(get_prediction(prediction), schedule.alpha_bar[-1])
        _check_data(data)
        _check_network(model, objective)
        self._classes = _number_of_classes(model, labels, len(data))
        processes, process = 1, 0
        if accelerator is not None:
            processes, process = accelerator.num_processes, accelerator.process_index
        if batch_size < processes * accumulate:
            raise ValueError(
                f"batch_size is {batch_size}; it must be at least {processes * accumulate}, one "
                f"sample for each of {accumulate} micro-batches in each of {processes} processes."
            )
        self.device = resolve_device(device) if accelerator is None else accelerator.device
        self.writes = accelerator is None or accelerator.is_main_process
        self.schedule = schedule
        # Gradients end at the data, whatever made them.
        self.data = data.detach().float().to(self.device) if isinstance(data, Tensor) else data
        # Rows are chosen where the data are.
        self._home = self.device if isinstance(data, Tensor) else torch.device("cpu")
        self.labels = None if labels is None else labels.to(self._home)
        self.model = model.to(self.device)
        self._accelerator = accelerator
        self._parts = _parts(batch_size, accumulate, processes, process)
        # In several processes this gives all the weights of the first; then comes the average.
        self._network = model if accelerator is None else accelerator.prepare_model(model)
        self._predict = self._network if precision == "fp32" else self._in_low_precision
        checkpoint.name_prediction(model, prediction)
        self.ema = copy.deepcopy(bare(model)).eval().requires_grad_(False)
        # One fused call updates all weights; the arithmetic is that of torch's default Adam.
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate(0), fused=fused)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.step = 0
        self.losses = torch.empty(0, dtype=torch.float32, device="cpu")
        self.gradient_norms = torch.empty(0, dtype=torch.float32, device="cpu")
        self.saved: tuple[Path, int] | None = None
        self._failure: str | None = None  # once a loss was not finite, what to say of it
        self._unknown = torch.tensor(math.nan, device=self.device)
        self._generator = torch.Generator(self.device)
        self._order: tuple[int, Tensor] | None = None  # (epoch, its permutation)

    def train(
        self,
        steps: int,
        *,
        progress: bool = True,
        callback: Callable[[Trainer], None] | None = None,
    ) -> Tensor:
        """Do this many more steps and return their losses, float32 (steps,).

        callback(trainer) runs after every 50 steps and after the last one, in every process; it may
        save, sample or draw without changing the run.

        Ctrl-C waits for the step at hand, and an error that the model raises undoes it: either
        way the trainer is then a run of ``step`` steps, which may be saved or go on. (Several
        processes wait for each other instead: when one stops, its launcher stops the others, and
        the run is what was saved last.)

        Raises:
            ValueError: steps is not a positive integer, callback is no function, or what the
                objective returned is not one number with a gradient.
            FloatingPointError: a loss is not finite. The steps before it stay recorded, but the
                weights are those of later ones: the run is over, and save() refuses to write it
                over a good checkpoint.
        """
        steps = check_integer("steps", steps)
        if callback is not None:
            check_callable("callback", callback, "callback(trainer)")
        self._refuse_to_go_on()
        first = self.step
        self.model.train()
        with tqdm(total=steps, disable=not (progress and self.writes), unit="step") as bar:
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
        losses: list[Tensor] = []  # of every part of every step
        norms: list[Tensor] = []
        alone = self._accelerator is None or self._accelerator.num_processes == 1
        try:
            with _generators_kept(self.device):
                while len(norms) < steps and not (alone and interrupted):
                    step = self.step + len(norms)
                    parts = self._differentiate(step, weights, buffers, averaged_buffers)
                    norm = self._descend(step, weights)
                    with torch.no_grad():
                        torch._foreach_lerp_(averages, weights, 1 - self._decay(step))
                        if buffers:
                            torch._foreach_copy_(averaged_buffers, buffers)
                    losses += parts
                    norms.append(norm)
        except BaseException:
            if alone:  # the others will not take part in a record
                self._record(losses, norms)
            raise
        return self._record(losses, norms)

    def _differentiate(
        self,
        step: int,
        weights: list[Tensor],
        buffers: list[Tensor],
        averaged_buffers: list[Tensor],
    ) -> list[Tensor]:
        """The loss of each part of this step and, in .grad, the gradient of the mean of all.

        An error leaves nothing behind.
        """
        labels: Tensor | None = None
        try:
            rows, t, eps, labels = self._batch(step)
            for weight in weights:
                weight.grad = None
            losses = []
            for part in self._parts:
                # What the network itself draws, as dropout does, differs from part to part.
                seed = _number(self.settings["seed"], "network", step, part.number)
                _seed_generators(seed, self.device)
                with self._synchronised(part):
                    loss = self._objective(
                        self._predict,
                        self.schedule,
                        self._on_device(self.data[rows[part.rows]]).detach(),
                        prediction=self.settings["prediction"],
                        labels=None if labels is None else labels[part.rows],
                        t=t[part.rows],
                        eps=eps[part.rows],
                    )
                    _check_loss(loss)
                    share = loss if part.share == 1 else loss * part.share
                    torch.autograd.backward(self._scaler.scale(share))
                losses.append(loss.detach())
        except BaseException as error:
            if buffers:  # those of the average are still what they were after the last step
                torch._foreach_copy_(buffers, averaged_buffers)
            if (
                isinstance(error, IndexError)
                and labels is not None
                and (labels == self._classes).any()
            ):
                raise ValueError(
                    f"the network failed ({error}). If it has no row for a label: they are 0.."
                    f'{self._classes - 1}, and {self._classes} stands for "no label"; give it '
                    f"{self._classes + 1} rows, or set label_dropout=0."
                ) from error
            raise
        return losses

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Rows of the data, steps t, noise and labels of the whole batch, all its parts."""
        settings, rows = self.settings, self._rows(step)
        generator = self._generator.manual_seed(_number(settings["seed"], "noise", step))
        shape = (len(rows), *self.data.shape[1:])
        like = torch.empty(shape, dtype=torch.float32, device=self.device)
        t, eps = draw_noise(self.schedule, like, generator)
        if self.labels is None:
            return rows, t, eps, None
        share = torch.rand(rows.shape, generator=generator, device=self.device, dtype=torch.float32)
        dropped = share < settings["label_dropout"]
        labels = self._on_device(self.labels[rows]).masked_fill(dropped, self._classes)
        return rows, t, eps, labels

    def _rows(self, step: int) -> Tensor:
        """The samples of a batch: a window of the endless row of permutations, one per epoch."""
        n, start = len(self.data), step * self.settings["batch_size"]
        stop = start + self.settings["batch_size"]
        pieces = []
        for epoch in range(start // n, (stop - 1) // n + 1):
            if self._order is None or self._order[0] != epoch:
                order = _permutation(n, self.settings["seed"], epoch)
                self._order = epoch, order.to(self._home)
            pieces.append(self._order[1][max(start - epoch * n, 0) : stop - epoch * n])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _on_device(self, x: Tensor) -> Tensor:
        """x where the network is; from pinned memory, a GPU copies it without being waited for."""
        if self.device.type == "cuda" and x.device.type == "cpu":
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)

    def _synchronised(self, part: _Part) -> AbstractContextManager[None]:
        """Processes add up their gradients once a step, with the last part of each."""
        if self._accelerator is None or part is self._parts[-1]:
            return nullcontext()
        alone: AbstractContextManager[None] = self._accelerator.no_sync(self._network)
        return alone

    def _in_low_precision(self, *arguments: Tensor) -> Tensor:
        with torch.autocast(self.device.type, PRECISIONS[self.settings["precision"]]):
            output: Tensor = self._network(*arguments)
        return output.float()

    def _descend(self, step: int, weights: list[Tensor]) -> Tensor:
        """Change the weights by the gradient, and return its norm."""
        norm, clip = self._unknown, self.settings["gradient_clip"]
        if clip is not None:
            self._scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(weights, clip)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate(step)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return norm

    def learning_rate(self, step: int) -> float:
        """The learning rate in the step after this many."""
        warmup: int = self.settings["warmup"]
        rate: float = self.settings["learning_rate"]
        return rate * min(1.0, (step + 1) / (warmup + 1))

    def _decay(self, step: int) -> float:
        decay: float = self.settings["ema_decay"]
        return min(decay, (1 + step) / (10 + step))

    def _record(self, parts: list[Tensor], norms: list[Tensor]) -> Tensor:
        """Read the losses of the last steps from the device, and keep those that are finite."""
        if not norms:
            return torch.empty(0, dtype=torch.float32, device="cpu")
        shares = [part.share for part in self._parts]
        weights = torch.tensor(shares, dtype=torch.float32, device="cpu")
        losses = torch.stack(parts).float().cpu().reshape(len(norms), -1) @ weights
        if self._accelerator is not None:
            losses = self._accelerator.reduce(losses.to(self.device), "mean").cpu()
        good = int(losses.isfinite().int().cumprod(0).sum())
        self.losses = torch.cat([self.losses, losses[:good]])
        norms_there = torch.stack(norms).float().cpu()[:good]
        self.gradient_norms = torch.cat([self.gradient_norms, norms_there])
        self.step += good
        if good < len(losses):
            self._failure = self._advice(losses[good].item())
        self._refuse_to_go_on()
        return losses

    def _refuse_to_go_on(self) -> None:
        """Raise FloatingPointError if the weights are no longer those of ``step`` steps."""
        if self._failure is not None:
            raise FloatingPointError(self._failure)

    def _advice(self, loss: float) -> str:
        """What to say when a loss is not finite."""
        safe = "no checkpoint was saved before"
        if self.saved is not None:
            safe = f"{self.saved[0]} holds the good weights of step {self.saved[1]} (load_model)"
        lower = "" if self.settings["precision"] == "fp32" else ' or precision="fp32"'
        return (
            f"the loss became {loss} at step {self.step + 1}; {safe}. The same run would fail the "
            "same way: start one with a smaller learning_rate (now "
            f"{self.settings['learning_rate']}), gradient_clip=1.0{lower}, and look for very large "
            "values in the data."
        )

    # --- files ---

    def save(self, path: str | Path, **notes: Any) -> None:
        """Write everything the run is made of; notes, plain values, join its description.

        The file is replaced in one piece: whatever happens, path holds the old checkpoint or the
        new one.

        Raises:
            OSError: the file cannot be written.
            ValueError: a note has a name that the description uses, or is not plain JSON.
            FloatingPointError: a loss or a weight is not finite.
        """
        parts: dict[str, Tensor | dict[str, Tensor]] = {
            "model": bare(self.model).state_dict(),
            "losses": self.losses,
            "gradient_norms": self.gradient_norms,
            "scaler": {
                name: torch.tensor(x, device="cpu") for name, x in self._scaler.state_dict().items()
            },
        }
        for index, state in self.optimizer.state_dict()["state"].items():
            parts[f"optimizer.{index}"] = state
        self._write(path, parts, notes)
        self.saved = Path(path), self.step

    def export(self, path: str | Path, **notes: Any) -> None:
        """Write what sampling needs and no more: averaged weights, schedule and description.

        Raises: as save.
        """
        self._write(path, {}, notes)

    def _write(
        self,
        path: str | Path,
        parts: dict[str, Tensor | dict[str, Tensor]],
        notes: dict[str, Any],
    ) -> None:
        if self._failure is not None:
            raise FloatingPointError(f"{path} was not written: {self._failure}")
        for name, weight in itertools.chain(
            bare(self.model).named_parameters(), self.ema.named_parameters()
        ):
            if not weight.isfinite().all():
                raise FloatingPointError(
                    f"{path} was not written: the weight {name} is not finite after step "
                    f"{self.step}."
                )
        info = {
            "network": self.ema.config if isinstance(self.ema, Network) else None,
            "step": self.step,
            "settings": self.settings,
            "data_shape": list(self.data.shape),
            **self._digests,
            "device": self.device.type,
            "processes": 1 if self._accelerator is None else self._accelerator.num_processes,
            "torch": torch.__version__,
        }
        for name in info.keys() & notes.keys():
            raise ValueError(f"{name} is not a name for a note; the description of a run uses it.")
        if self.writes:
            parts = parts | {"ema": self.ema.state_dict()}
            checkpoint.write(path, self.schedule, info | notes, parts)

    @cached_property
    def _digests(self) -> dict[str, str | None]:
        """By which resume knows data and labels again."""
        labels = None if self.labels is None else _digest(self.labels)
        return {"data_digest": _digest(self.data), "labels_digest": labels}

    def write_log(self, path: str | Path, since: int = 0) -> None:
        """Write step, loss, learning rate and gradient norm of every step as lines of CSV.

        With ``since``, a number of steps, the lines of the later ones are put at the end of the
        file; without, the file is written anew.

        Raises:
            OSError: the file cannot be written.
        """
        if not self.writes:
            return
        with open(path, "a" if since else "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, lineterminator="\n")
            if not since:
                lines.writerow(["step", "loss", "learning_rate", "gradient_norm"])
            columns = self.losses[since:].tolist(), self.gradient_norms[since:].tolist()
            for step, (loss, norm) in enumerate(zip(*columns, strict=True), start=since):
                numbers = loss, self.learning_rate(step), norm
                lines.writerow([step + 1, *(f"{number:.9g}" for number in numbers)])

    @classmethod
    def resume(
        cls,
        path: str | Path,
        data: Tensor | Samples,
        *,
        labels: Tensor | None = None,
        model: nn.Module | None = None,
        objective: Objective | None = None,
        device: str | torch.device = "auto",
        accelerator: Accelerator | None = None,
    ) -> Trainer:
        """The trainer that save() wrote, ready to go on as if it had never stopped.

        Give model, of the same architecture, where it is not one of diffusion_lib.networks, and
        objective where it is a function and not a name. On another kind of device the run goes on,
        but its noise is new there. The number of processes may be another.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a whole checkpoint of a trainer, data or labels are not those it
                was trained on (of more than a thousand samples a thousand are compared), objective
                is missing or not wanted, or its weights do not fit model, which is as it was then.
        """
        stored = checkpoint.read(path)
        info = stored.info
        if "losses" not in stored.tensors:
            raise ValueError(
                f"{path} holds a model to sample from, not a run to resume; resume from the "
                "checkpoint that Trainer.save wrote."
            )
        if stored.format != checkpoint.FORMAT:
            raise ValueError(
                f"{path} was written by an earlier version of diffusion_lib; it can be sampled "
                "from, but its run cannot be resumed."
            )
        _check_data(data)
        _check_labels(labels, len(data))
        with checkpoint.reading(path):
            settings = _settings(**info["settings"])
            digests = info["data_digest"], info["labels_digest"]
        if list(data.shape) != info["data_shape"]:
            raise ValueError(
                f"data has shape {tuple(data.shape)}, but {path} was trained on "
                f"{tuple(info['data_shape'])}; resume with the same data."
            )
        if _digest(data) != digests[0]:
            raise ValueError(f"data are not the values {path} was trained on; resume with those.")
        if (None if labels is None else _digest(labels)) != digests[1]:
            given = "none are" if labels is None else "these are"
            trained = "without labels" if digests[1] is None else "with labels"
            raise ValueError(
                f"{path} was trained {trained}, and {given} given; resume with the same labels."
            )
        named = settings.pop("objective")
        if callable(objective) != (named is None):
            trained = "with a function of your own" if named is None else f"with {named!r}"
            wish = "pass it as objective" if named is None else "leave objective out"
            raise ValueError(f"{path} was trained {trained}; {wish}.")
        model = stored.network(model)
        weights = stored.part("model")
        checkpoint.check_fit(model, weights, path)
        with checkpoint.reading(path):
            optimizer = _optimizer_state(model, stored)
            scaler = _scaler_state(stored)
            for name in ("losses", "gradient_norms"):
                if stored.tensors[name].shape != (info["step"],):
                    raise ValueError(f"it has done {info['step']} steps but holds other {name}")
        trainer = cls(
            model,
            stored.schedule,
            data,
            labels=labels,
            device=device,
            accelerator=accelerator,
            objective=objective or named,
            **settings,
        )
        bare(model).load_state_dict(weights)
        trainer.ema.load_state_dict(stored.part("ema"))
        groups = trainer.optimizer.state_dict()["param_groups"]
        trainer.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        trainer._scaler.load_state_dict(scaler)
        trainer.step = info["step"]
        trainer.losses = stored.tensors["losses"]
        trainer.gradient_norms = stored.tensors["gradient_norms"]
        trainer.saved = Path(path), trainer.step
        return trainer


@dataclass(frozen=True)
class _Part:
    """A slice of the batch that goes through the network at once.

    Attributes:
        number: of all parts in all processes.
        rows: where in the batch it is.
        share: its share of the batch, times the number of processes, over which gradients and
            losses are averaged.
    """

    number: int
    rows: slice
    share: float


def _parts(batch_size: int, accumulate: int, processes: int, process: int) -> list[_Part]:
    """The parts of one process; those of all processes are the batch, each sample once."""
    count = processes * accumulate
    bounds = [batch_size * number // count for number in range(count + 1)]
    parts = []
    for number in range(process * accumulate, (process + 1) * accumulate):
        rows = slice(bounds[number], bounds[number + 1])
        share = processes * (rows.stop - rows.start) / batch_size
        parts.append(_Part(number, rows, share))
    return parts


def _optimizer_state(
    model: nn.Module, stored: checkpoint.Checkpoint
) -> dict[int, dict[str, Tensor]]:
    """Adam's state of every weight that has one, of the weight's shape."""
    states = {}
    for index, weight in enumerate(model.parameters()):
        state = stored.part(f"optimizer.{index}")
        shapes = {"step": (), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
        if state and {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise ValueError(f"the optimizer's state {index} does not fit its weight")
        if state:
            states[index] = state
    return states


def _scaler_state(stored: checkpoint.Checkpoint) -> dict[str, float]:
    """The state of the gradient's scale, which only fp16 has."""
    enabled = stored.info["settings"]["precision"] == "fp16"
    expected = torch.amp.GradScaler("cpu", enabled=enabled).state_dict()
    state = {name: value.item() for name, value in stored.part("scaler").items()}
    if state.keys() != expected.keys():
        raise ValueError("the state of its gradient's scale is not whole")
    return state


def _digest(samples: Tensor | Samples) -> str:
    """A fingerprint of up to a thousand samples, or labels, spread over all.

    It is the same whether they are in memory or not, so it cannot look at all of them.
    """
    count = min(len(samples), 1000)
    rows = torch.arange(count, device="cpu") * (len(samples) - 1) // max(count - 1, 1)
    if isinstance(samples, Tensor):
        rows = rows.to(samples.device)
    return hashlib.sha256(samples[rows].detach().float().cpu().numpy().tobytes()).hexdigest()


# --- checks -------------------------------------------------------------------------------------


def _settings(
    *,
    objective: Any,
    prediction: Any,
    label_dropout: Any,
    batch_size: Any,
    accumulate: Any,
    precision: Any,
    learning_rate: Any,
    warmup: Any,
    ema_decay: Any,
    gradient_clip: Any,
    seed: Any,
) -> dict[str, Any]:
    """The settings of a run as plain values, which a file can hold; an own objective is None."""
    if objective is not None:
        check_choice("objective", objective, OBJECTIVES)
    get_prediction(prediction)
    check_choice("precision", precision, PRECISIONS)
    if gradient_clip is not None:
        gradient_clip = check_number(
            "gradient_clip", gradient_clip, lambda norm: norm > 0, "above 0, or None"
        )
    return {
        "objective": objective,
        "prediction": prediction,
        "label_dropout": check_number(
            "label_dropout", label_dropout, lambda share: 0 <= share <= 1, "in 0..1"
        ),
        "batch_size": check_integer("batch_size", batch_size),
        "accumulate": check_integer("accumulate", accumulate),
        "precision": precision,
        "learning_rate": check_number(
            "learning_rate", learning_rate, lambda rate: 0 < rate < math.inf, "above 0 and finite"
        ),
        "warmup": check_integer("warmup", warmup, least=0),
        "ema_decay": check_number(
            "ema_decay", ema_decay, lambda decay: 0 <= decay < 1, "of 0 or more and below 1"
        ),
        "gradient_clip": gradient_clip,
        "seed": check_integer("seed", seed, least=0, most=2**63 - 1),
    }


def _objective(objective: str | Objective) -> Objective:
    """The function of that name, or the function itself."""
    if isinstance(objective, str):
        return OBJECTIVES[objective]
    if not callable(objective):
        names = ", ".join(OBJECTIVES)
        raise ValueError(
            f"objective is {objective!r:.60}; it must be one of {names}, or a function."
        )
    return objective


def _check_data(data: Tensor | Samples) -> None:
    """Raise ValueError unless data are samples; of what is not in memory, the first is read."""
    sample = data if isinstance(data, Tensor) else _first_of(data)
    if sample is None or not sample.is_floating_point():
        kind = type(data).__name__ if sample is None else sample.dtype
        raise ValueError(
            f"data is {kind}; it must be a floating-point tensor of samples, or read such."
        )
    shape = tuple(data.shape)
    if len(shape) < 2 or math.prod(shape) == 0:
        raise ValueError(f"data has shape {shape}; it must be (N, ...), N samples of some size.")
    if sample is not data and (sample.shape != (1, *shape[1:]) or sample.dtype != torch.float32):
        raise ValueError(
            f"data reads its first sample as {sample.dtype} of shape {tuple(sample.shape)}; it "
            f"must be torch.float32 of shape {(1, *shape[1:])}."
        )
    if not sample.isfinite().all():
        raise ValueError("data holds values that are not finite.")


def _first_of(data: Samples) -> Tensor | None:
    """The first sample of what is not in memory, or None if that is not how it is read."""
    try:
        sample = data[torch.zeros(1, dtype=torch.int64, device="cpu")]
    except (AttributeError, LookupError, TypeError):
        return None
    return sample if isinstance(sample, Tensor) and hasattr(data, "shape") else None


def _check_accelerator(accelerator: Accelerator, device: str | torch.device) -> None:
    """Raise ValueError unless it is one, and leaves arithmetic to precision, which is recorded."""
    mixed = getattr(accelerator, "mixed_precision", None)
    if mixed is None:
        raise ValueError(f"accelerator is {accelerator!r:.60}; it must be an Accelerator.")
    if mixed != "no":
        raise ValueError(
            f"the accelerator has mixed_precision={mixed!r}; it must be 'no': precision={mixed!r} "
            "of the trainer says the same and is saved with the run."
        )
    if device != "auto":
        raise ValueError(f"device is {device!r}; the accelerator decides it, leave it out.")


def _check_loss(loss: object) -> None:
    """Raise ValueError unless an objective returned what can be minimised."""
    if isinstance(loss, Tensor) and loss.is_floating_point() and loss.ndim == 0:
        if loss.requires_grad:
            return
        what = "a number without a gradient"
    else:
        what = f"{loss!r:.60}"
    raise ValueError(
        f"the objective returned {what}; it must be one floating-point number, a tensor of shape "
        "(), that depends on the weights."
    )


def _check_network(model: nn.Module, objective: str | Objective) -> None:
    """Raise ValueError unless the weights can be trained, and our networks answer what is asked."""
    network = bare(model)
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError("the model has no weight that can be trained.")
    for name, weight in network.named_parameters():
        if weight.dtype != torch.float32:
            raise ValueError(
                f"the model's weight {name} is {weight.dtype}; training takes float32 weights: "
                "model.float(). (precision is for cheaper arithmetic.)"
            )
    if not isinstance(network, Network) or not isinstance(objective, str):
        return
    learned = network.config["learned_variance"]
    if learned != (objective == "hybrid"):
        raise ValueError(
            f"objective is {objective!r} and the network has learned_variance={learned}; a learned "
            "variance needs the objective 'hybrid', and that needs one."
        )


def _check_labels(labels: Tensor | None, count: int) -> None:
    """Raise ValueError unless there are none, or one integer for each of the samples."""
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        kind = type(labels).__name__
        if isinstance(labels, Tensor):
            kind = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"labels is {kind}; it must be int64 of shape ({count},), one a sample.")


def _number_of_classes(model: nn.Module, labels: Tensor | None, count: int) -> int:
    """K of the network, if the labels are 0..K-1; 0 without labels."""
    _check_labels(labels, count)
    if labels is None:
        return 0
    network, least, greatest = bare(model), int(labels.min()), int(labels.max())
    classes = network.config["classes"] if isinstance(network, Network) else greatest + 1
    if classes is None:
        raise ValueError("labels are given, but the network has classes=None; make it with K.")
    if least < 0 or greatest >= classes:
        raise ValueError(f"labels run from {least} to {greatest}; they must be 0..{classes - 1}.")
    return int(classes)
