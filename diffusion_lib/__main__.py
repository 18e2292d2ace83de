"""The command line: ``python -m diffusion_lib train ...`` and ``... sample ...``.

``train`` writes a folder: ``checkpoint.safetensors`` (to resume), ``model.safetensors`` (to sample
from), ``samples.png`` (or .npy), ``log.csv`` and ``losses.png``. Launched as ``accelerate launch -m
diffusion_lib train ...`` it trains in several processes. ``sample`` draws from such a model, or
from the digits that come with the library. Whatever is wrong is said in one sentence, with exit
code 2.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from . import data, pictures, samplers
    from .checkpoint import load_model, load_pretrained, pretrained_names
    from .networks import NETWORKS, Network, build, default_network
    from .objectives import OBJECTIVES
    from .prediction import PREDICTIONS
    from .schedule import NoiseSchedule
    from .training import PRECISIONS, Samples, Trainer
except KeyboardInterrupt:  # importing torch takes seconds
    raise SystemExit(130) from None

if TYPE_CHECKING:
    from accelerate import Accelerator

SCHEDULES: dict[str, Callable[[], NoiseSchedule]] = {
    "linear": NoiseSchedule.linear,
    "scaled_linear": NoiseSchedule.scaled_linear,
    "cosine": NoiseSchedule.cosine,
    "sigmoid": NoiseSchedule.sigmoid,
}
# What makes a run what it is. A resumed run takes these from its checkpoint.
RECIPE: dict[str, Any] = {
    "schedule": "linear",
    "zero_terminal": False,
    "network": None,
    "objective": "simple",
    "prediction": "eps",
    "label_dropout": 0.1,
    "batch_size": 64,
    "accumulate": 1,
    "precision": "fp32",
    "learning_rate": 2e-3,
    "ema_decay": 0.999,
    "gradient_clip": 1.0,
    "seed": 0,
}
SAMPLERS = ("ddim", "ddpm", "dpm_solver", "heun")
CHOICES = {"eta": "ddim", "variance": "ddpm"}  # the options that only one sampler has
LITTLE_MEMORY = re.compile(r"out of memory|allocate memory")  # as torch's devices say it
# In the environment of what accelerate launches; the second also of what torchrun launches.
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["python", "-m", "diffusion_lib", *arguments])
    try:
        _check_numbers(options)
        options.run(options)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not LITTLE_MEMORY.search(str(error)):
            raise
        print(f"error: there is too little memory to {options.less_memory}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {options.stopped}.", file=sys.stderr)
        return 130
    return 0


def _check_numbers(options: argparse.Namespace) -> None:
    for name in (
        "steps",
        "save_every",
        "sample_every",
        "size",
        "batch_size",
        "accumulate",
        "count",
    ):
        value = getattr(options, name, None)
        if value is not None and not 1 <= value < 2**31:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value}; it must be a positive integer below 2**31."
            )
    if not 0 <= getattr(options, "seed", 0) < 2**63:
        raise ValueError(f"--seed is {options.seed}; it must be 0 or more and below 2**63.")


# --- train --------------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> None:
    """Train until options.steps steps are done in all, saving on the way; then draw samples."""
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, which is a file; it must be a folder, new or not.")
    checkpoint, log = out / "checkpoint.safetensors", out / "log.csv"
    trainer = _trainer(checkpoint, options)
    if trainer.step >= options.steps:
        raise ValueError(
            f"--steps is {options.steps}, but {checkpoint} has already done {trainer.step}."
        )
    clip = _clip(trainer)
    if clip is not None and trainer.writes:
        print(
            f"note: this schedule ends so close to pure noise that what is predicted as "
            f"{trainer.settings['prediction']} must be clipped: sample with --clip {clip[0]:g} "
            f"{clip[1]:g}, as is done here, or train with --prediction v.",
            file=sys.stderr,
        )
    if options.compile:
        trainer.model.compile()
    notes = {"data": options.data, "command": options.command}
    trainer.save(checkpoint, **notes)  # a folder that cannot be written is best known now
    trainer.write_log(log)
    saved = logged = sampled = trainer.step

    def after_a_block(trainer: Trainer) -> None:
        nonlocal saved, logged, sampled
        trainer.write_log(log, since=logged)
        logged = trainer.step
        if trainer.step - saved >= options.save_every or trainer.step == options.steps:
            trainer.save(checkpoint, **notes)
            saved = trainer.step
        if options.sample_every and trainer.step - sampled >= options.sample_every:
            _save_samples(trainer, out / f"samples-{trainer.step:07}", clip)
            sampled = trainer.step

    trainer.train(options.steps - trainer.step, callback=after_a_block)
    trainer.export(out / "model.safetensors", **notes)
    if trainer.writes:
        pictures.save_loss_curve(out / "losses.png", trainer.losses)
        _save_samples(trainer, out / "samples", clip)
        print(f"wrote {', '.join(sorted(file.name for file in out.iterdir()))} to {out}")


def _save_samples(trainer: Trainer, path: Path, clip: tuple[float, float] | None) -> None:
    """Samples of the averaged model as a picture or an array, the same noise every time."""
    if not trainer.writes:
        return
    shape = trainer.data.shape[1:]
    count = 64 if len(shape) == 3 else 2000
    drawn = _draw(
        trainer.ema,
        trainer.schedule.strided(min(50, trainer.schedule.T)),
        shape,
        count=count,
        labels=_labels(trainer.ema, count),
        seed=trainer.settings["seed"],
        device=trainer.device,
        sampler=samplers.ddim,
        prediction=trainer.settings["prediction"],
        clip=clip,
    )
    suffix = ".png" if pictures.has_picture(shape) else ".npy"
    pictures.save_samples(path.with_suffix(suffix), drawn)


def _clip(trainer: Trainer) -> tuple[float, float] | None:
    """The range of the data where samples would explode unclipped.

    Predicted noise is divided by the root of alpha_bar_T to predict the data; with the cosine
    schedule this multiplies every error by 20 000. Of data that are not in memory a part is seen.
    """
    if trainer.settings["prediction"] in ("v", "x_0") or trainer.schedule.alpha_bar[-1] > 1e-6:
        return None
    seen = trainer.data
    if not isinstance(seen, Tensor):
        seen = seen[torch.linspace(0, len(seen) - 1, 1000).long()]
    bound = float(seen.abs().max()) or 1.0
    return -bound, bound


def _trainer(checkpoint: Path, options: argparse.Namespace) -> Trainer:
    """A new run or, with --resume, the one in the checkpoint; in all processes, if launched so."""
    samples, labels = data.load_labelled(options.data, options.size)
    if not options.conditional:
        labels = None
    elif labels is None:
        raise ValueError(f"--conditional needs labels, and {options.data} has none.")
    accelerator = _accelerator(options)
    where = {"device": options.device} if accelerator is None else {"accelerator": accelerator}
    if options.resume:
        trainer = Trainer.resume(checkpoint, samples, labels=labels, **where)
        _check_recipe(trainer, checkpoint, options)
        return trainer
    if checkpoint.exists():
        raise ValueError(
            f"{checkpoint} exists; add --resume to go on with it, or choose another --out."
        )
    settings = {name: getattr(options, name, default) for name, default in RECIPE.items()}
    schedule = _schedule(settings.pop("schedule"), settings.pop("zero_terminal"))
    torch.manual_seed(settings["seed"])  # the initial weights
    classes = None if labels is None else int(labels.max()) + 1
    learned = settings["objective"] == "hybrid"
    network = _network(settings.pop("network"), samples, classes=classes, learned_variance=learned)
    return Trainer(network, schedule, samples, labels=labels, **settings, **where)


def _accelerator(options: argparse.Namespace) -> Accelerator | None:
    """What joins the processes where accelerate or torchrun launched this one, else None."""
    if not any(name in os.environ for name in LAUNCHED):
        return None
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError("several processes need accelerate: pip install accelerate.") from None
    precision = os.environ.get(LAUNCHED[0], "no")
    if precision != "no":
        raise ValueError(
            f"accelerate was launched with mixed precision {precision}; launch it with "
            "--mixed_precision no, and give train --precision."
        )
    accelerator = Accelerator(cpu=options.device == "cpu")
    if options.device not in ("auto", accelerator.device.type):
        raise ValueError(
            f"--device is {options.device}, but accelerate gave this process "
            f"{accelerator.device}; choose devices when launching."
        )
    return accelerator


def _schedule(name: str, zero_terminal: bool) -> NoiseSchedule:
    schedule = SCHEDULES[name]()
    return schedule.zero_terminal() if zero_terminal else schedule


def _network(name: str | None, samples: Tensor | Samples, **options: Any) -> Network:
    """A network for such samples: of the size that suits them, or with --network of that kind."""
    shape = tuple(samples.shape[1:])
    fitting = ("mlp",) if len(shape) == 1 else ("unet", "dit")
    if name not in (None, *fitting):
        raise ValueError(
            f"--network is {name}; it must be {' or '.join(fitting)} for samples of shape {shape}."
        )
    if name == "dit":
        network = build({"name": "dit", "channels": shape[0], **options})
    else:
        network = default_network(shape, **options)
    with torch.no_grad():  # a size that does not fit is best known now
        network(torch.zeros(1, *shape), torch.ones(1, dtype=torch.int64))
    return network


def _check_recipe(trainer: Trainer, checkpoint: Path, options: argparse.Namespace) -> None:
    """Raise ValueError where something was asked that the resumed run is not."""
    for name in RECIPE.keys() & vars(options).keys():
        asked = getattr(options, name)
        if name == "network":
            same = isinstance(trainer.ema, Network) and asked == trainer.ema.config["name"]
        elif name in ("schedule", "zero_terminal"):
            same = _same_schedule(trainer.schedule, options)
        else:
            same = asked == trainer.settings[name]
        if not same:
            raise ValueError(
                f"--{name.replace('_', '-')} is {asked}, but {checkpoint} was trained differently; "
                "a resumed run keeps its recipe."
            )


def _same_schedule(schedule: NoiseSchedule, options: argparse.Namespace) -> bool:
    """Whether it is what was asked; machines may differ in the last bit of a table."""
    names = [options.schedule] if hasattr(options, "schedule") else list(SCHEDULES)
    ends = [options.zero_terminal] if hasattr(options, "zero_terminal") else [False, True]
    tables = [_schedule(name, end).alpha_bar for name in names for end in ends]
    return any(
        len(table) == len(schedule.alpha_bar)
        and np.allclose(table, schedule.alpha_bar, rtol=1e-9, atol=0)
        for table in tables
    )


# --- sample -------------------------------------------------------------------------------------


def sample(options: argparse.Namespace) -> None:
    """Draw options.count samples from a trained model and write them as a picture or an array."""
    for choice, sampler in CHOICES.items():
        if sampler != options.sampler and hasattr(options, choice):
            raise ValueError(f"--{choice} is only for --sampler {sampler}, not {options.sampler}.")
    model, schedule, info = _trained(options.checkpoint, options.device)
    for name in ("label", "guidance"):
        if getattr(options, name) is not None and _classes(model) is None:
            raise ValueError(f"--{name} needs a model trained with --conditional.")
    shape = info["data_shape"][1:]
    pictures.prepare_output(options.out, shape)
    if options.steps is not None:
        schedule = schedule.strided(options.steps)
    choices = {name: getattr(options, name) for name in CHOICES if hasattr(options, name)}
    drawn = _draw(
        model,
        schedule,
        shape,
        count=options.count,
        labels=_labels(model, options.count, options.label),
        guidance=options.guidance,
        seed=options.seed,
        device=next(model.parameters()).device,
        sampler=getattr(samplers, options.sampler),
        prediction=info["settings"]["prediction"],
        clip=options.clip,
        **choices,
    )
    pictures.save_samples(options.out, drawn)
    print(f"wrote {options.count} samples to {options.out}")


def _trained(source: str, device: str) -> tuple[nn.Module, NoiseSchedule, dict[str, Any]]:
    """The model of that name, else in the file or folder there; ./digits is a folder."""
    if source in pretrained_names():
        return load_pretrained(source, device=device)
    path = Path(source)
    if not path.exists():
        raise ValueError(
            f"--checkpoint is {source!r}; it must be {', '.join(pretrained_names())}, or an "
            "existing file or folder of a run."
        )
    return load_model(path / "model.safetensors" if path.is_dir() else path, device=device)


def _classes(model: nn.Module) -> int | None:
    """The number of classes that a model knows, if any."""
    return model.config["classes"] if isinstance(model, Network) else None


def _labels(model: nn.Module, count: int, label: int | None = None) -> Tensor | None:
    """That label for all samples, or every label in turn; None where the model knows no labels."""
    classes = _classes(model)
    if classes is None:
        return None
    if label is None:
        return torch.arange(count) % classes
    if not 0 <= label < classes:
        raise ValueError(f"--label is {label}; it must be one of 0..{classes - 1}.")
    return torch.full((count,), label)


def _draw(
    model: nn.Module,
    schedule: NoiseSchedule,
    shape: Sequence[int],
    *,
    count: int,
    seed: int,
    device: torch.device,
    sampler: Callable[..., Tensor],
    labels: Tensor | None = None,
    guidance: float | None = None,
    **options: Any,
) -> Tensor:
    """count samples of that shape, from noise that only the seed and the device decide."""
    generator = torch.Generator(device).manual_seed(seed)
    x_T = torch.randn(count, *shape, generator=generator, device=device)
    told: Callable[..., Tensor] = model
    if labels is not None:
        told = samplers.guided(model, labels.to(device), 1.0 if guidance is None else guidance)
    if sampler in (samplers.ddim, samplers.ddpm):  # the others draw nothing
        options["generator"] = generator
    drawn: Tensor = sampler(told, schedule, x_T, progress=True, **options)
    return drawn


# --- the parser ---------------------------------------------------------------------------------


EXAMPLES = """\
examples:
  python -m diffusion_lib sample --steps 50
      a picture of 64 digits, from the model that comes along
  python -m diffusion_lib train --data photos --size 32 --out runs/photos
      your own model, of the pictures in the folder photos
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that there are, once each."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.nargs == 0  # a switch is off
        said = "(default:" in (action.help or "")
        return action.help if none or said else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m diffusion_lib",
        description="Train a diffusion model, and sample from it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{train,sample}")

    command = commands.add_parser(
        "train", help="train a model on digits, a toy set, or your own data", formatter_class=_Help
    )
    command.set_defaults(
        run=train,
        stopped="train --resume goes on from the last checkpoint, if there is one",
        less_memory="train like this; try a smaller --batch-size or --size",
    )
    toys = ", ".join(data.TOYS)
    command.add_argument(
        "--data",
        default="digits",
        help=f"digits, {toys}, a file (.npy, .npz, IDX, CIFAR), or a folder of pictures",
    )
    command.add_argument(
        "--conditional", action="store_true", help="train on the labels of the data, too"
    )
    command.add_argument("--size", type=int, help="side of the pictures of a folder, in pixels")
    command.add_argument("--out", default="runs/digits", help="folder to write to")
    command.add_argument("--steps", type=int, default=4000, help="training steps in all")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument(
        "--save-every", type=int, default=500, help="steps between checkpoints (by 50)"
    )
    command.add_argument("--sample-every", type=int, help="steps between pictures (by 50)")
    command.add_argument("--compile", action="store_true", help="compile the network first")
    _add_device(command)
    recipe = command.add_argument_group("recipe (a resumed run keeps its own)")
    recipe.add_argument(
        "--zero-terminal",
        action="store_true",
        default=argparse.SUPPRESS,
        help="rescale the schedule so that it ends in pure noise",
    )
    recipe.add_argument(
        "--network",
        choices=list(NETWORKS),
        default=argparse.SUPPRESS,
        help="kind of network (default: mlp for points, unet for images)",
    )
    for name, choices, text in (
        ("schedule", SCHEDULES, "noise schedule of 1000 steps"),
        ("objective", OBJECTIVES, "what is minimised; hybrid learns the variance, too"),
        ("prediction", PREDICTIONS, "what the network predicts"),
        ("label_dropout", None, "share of the labels left out, for guidance"),
        ("batch_size", None, "samples per step"),
        ("accumulate", None, "parts into which a step divides its batch"),
        ("precision", PRECISIONS, "arithmetic of the network"),
        ("learning_rate", None, "learning rate of Adam"),
        ("ema_decay", None, "decay of the moving average of the weights"),
        ("gradient_clip", None, "largest norm of the gradient"),
        ("seed", None, "seed of the weights, the order of the data and the noise"),
    ):
        recipe.add_argument(
            f"--{name.replace('_', '-')}",
            choices=None if choices is None else list(choices),
            type=type(RECIPE[name]),
            default=argparse.SUPPRESS,
            help=f"{text} (default: {RECIPE[name]})",
        )

    command = commands.add_parser(
        "sample", help="draw samples from a trained model", formatter_class=_Help
    )
    command.set_defaults(
        run=sample,
        stopped="no samples were written",
        less_memory="sample like this; try a smaller --count",
    )
    command.add_argument(
        "--checkpoint",
        default="digits",
        help="a run's file or folder, or digits, the model that comes along",
    )
    command.add_argument("--sampler", choices=SAMPLERS, default="ddim", help="sampler to use")
    command.add_argument("--steps", type=int, help="steps to take (default: all of the schedule)")
    command.add_argument(
        "--eta",
        type=float,
        default=argparse.SUPPRESS,
        help="randomness of ddim, 0 to 1 (default: 0)",
    )
    command.add_argument(
        "--variance",
        choices=["posterior", "beta", "learned"],
        default=argparse.SUPPRESS,
        help="variance of the noise of ddpm (default: posterior)",
    )
    command.add_argument("--label", type=int, help="class of the samples (default: all in turn)")
    command.add_argument(
        "--guidance", type=float, help="how much to insist on the class; 1 is plain (default: 1)"
    )
    command.add_argument(
        "--clip",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="keep predicted data in this range",
    )
    command.add_argument("--count", type=int, default=64, help="number of samples")
    command.add_argument("--seed", type=int, default=0, help="seed of the noise")
    command.add_argument("--out", default="samples.png", help="a picture, or .npy for the numbers")
    _add_device(command)
    return parser


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


if __name__ == "__main__":
    raise SystemExit(main())
