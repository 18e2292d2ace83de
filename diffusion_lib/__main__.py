"""The command line: ``python -m diffusion_lib train ...`` and ``... sample ...``.

``train`` writes a folder: ``checkpoint.safetensors`` (to resume), ``model.safetensors`` (to sample
from), ``samples.png`` (or .npy) and ``losses.png``. ``sample`` draws from such a model, or from the
digits that come with the library. Whatever is wrong is said in one sentence, with exit code 2.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from . import data, pictures, samplers
    from .networks import default_network
    from .prediction import PREDICTIONS
    from .schedule import NoiseSchedule
    from .checkpoint import load_model, load_pretrained, pretrained_names
    from .training import Trainer
except KeyboardInterrupt:  # importing torch takes seconds
    raise SystemExit(130) from None

SCHEDULES: dict[str, Callable[[], NoiseSchedule]] = {
    "linear": NoiseSchedule.linear,
    "cosine": NoiseSchedule.cosine,
}
# What makes a run what it is. A resumed run takes these from its checkpoint.
RECIPE: dict[str, Any] = {
    "schedule": "linear",
    "prediction": "eps",
    "batch_size": 64,
    "learning_rate": 2e-3,
    "ema_decay": 0.999,
    "gradient_clip": 1.0,
    "seed": 0,
}
CHOICES = {"ddim": "eta", "ddpm": "variance"}  # the option that only this sampler has


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
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        print(f"error: there is too little memory to {options.less_memory}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {options.stopped}.", file=sys.stderr)
        return 130
    return 0


def _check_numbers(options: argparse.Namespace) -> None:
    for name in ("steps", "save_every", "size", "batch_size", "count"):
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
    checkpoint = out / "checkpoint.safetensors"
    samples = data.load(options.data, options.size)
    trainer = (_resumed if options.resume else _fresh)(samples, checkpoint, options)
    if trainer.step >= options.steps:
        raise ValueError(
            f"--steps is {options.steps}, but {checkpoint} has already done {trainer.step}."
        )
    clip = _clip(trainer)
    if clip is not None:
        print(
            f"note: this schedule ends so close to pure noise that what is predicted as "
            f"{trainer.settings['prediction']} must be clipped: sample with --clip {clip[0]:g} "
            f"{clip[1]:g}, as is done here, or train with --prediction v.",
            file=sys.stderr,
        )
    notes = {"data": options.data, "command": options.command}
    trainer.save(checkpoint, **notes)  # a folder that cannot be written is best known now
    saved = trainer.step

    def save(trainer: Trainer) -> None:
        nonlocal saved
        if trainer.step - saved >= options.save_every or trainer.step == options.steps:
            trainer.save(checkpoint, **notes)
            saved = trainer.step

    trainer.train(options.steps - trainer.step, callback=save)
    trainer.export(out / "model.safetensors", **notes)
    pictures.save_loss_curve(out / "losses.png", trainer.losses)

    drawn = _draw(
        trainer.ema,
        trainer.schedule.strided(min(50, trainer.schedule.T)),
        samples.shape[1:],
        count=64 if samples.ndim == 4 else 2000,
        seed=trainer.settings["seed"],
        device=trainer.device,
        sampler=samplers.ddim,
        prediction=trainer.settings["prediction"],
        clip=clip,
    )
    picture = pictures.has_picture(samples.shape[1:])
    pictures.save_samples(out / ("samples.png" if picture else "samples.npy"), drawn)
    print(f"wrote {', '.join(sorted(file.name for file in out.iterdir()))} to {out}")


def _clip(trainer: Trainer) -> tuple[float, float] | None:
    """The range of the data where samples would explode unclipped.

    Predicted noise is divided by the root of alpha_bar_T to predict the data; with the cosine
    schedule this multiplies every error by 20 000.
    """
    if trainer.settings["prediction"] in ("v", "x_0") or trainer.schedule.alpha_bar[-1] > 1e-6:
        return None
    bound = float(trainer.data.abs().max()) or 1.0
    return -bound, bound


def _fresh(samples: Tensor, checkpoint: Path, options: argparse.Namespace) -> Trainer:
    if checkpoint.exists():
        raise ValueError(
            f"{checkpoint} exists; add --resume to go on with it, or choose another --out."
        )
    settings = {name: getattr(options, name, default) for name, default in RECIPE.items()}
    schedule = SCHEDULES[settings.pop("schedule")]()
    torch.manual_seed(settings["seed"])  # the initial weights
    model = default_network(samples.shape[1:])
    return Trainer(model, schedule, samples, device=options.device, **settings)


def _resumed(samples: Tensor, checkpoint: Path, options: argparse.Namespace) -> Trainer:
    trainer = Trainer.resume(checkpoint, samples, device=options.device)
    for name in RECIPE.keys() & vars(options).keys():
        asked = getattr(options, name)
        if name == "schedule":
            tables = SCHEDULES[asked]().alpha_bar, trainer.schedule.alpha_bar
            # Machines may differ in the last bit of a table.
            same = len(tables[0]) == len(tables[1]) and np.allclose(*tables, rtol=1e-9, atol=0)
        else:
            same = asked == trainer.settings[name]
        if not same:
            raise ValueError(
                f"--{name.replace('_', '-')} is {asked}, but {checkpoint} was trained differently; "
                "a resumed run keeps its recipe."
            )
    return trainer


# --- sample -------------------------------------------------------------------------------------


def sample(options: argparse.Namespace) -> None:
    """Draw options.count samples from a trained model and write them as a picture or an array."""
    for sampler, choice in CHOICES.items():
        if sampler != options.sampler and hasattr(options, choice):
            raise ValueError(f"--{choice} is only for --sampler {sampler}, not {options.sampler}.")
    model, schedule, info = _trained(options.checkpoint, options.device)
    shape = info["data_shape"][1:]
    pictures.prepare_output(options.out, shape)
    if options.steps is not None:
        schedule = schedule.strided(options.steps)
    choices = {name: getattr(options, name) for name in CHOICES.values() if hasattr(options, name)}
    drawn = _draw(
        model,
        schedule,
        shape,
        count=options.count,
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


def _draw(
    model: nn.Module,
    schedule: NoiseSchedule,
    shape: Sequence[int],
    *,
    count: int,
    seed: int,
    device: torch.device,
    sampler: Callable[..., Tensor],
    **options: Any,
) -> Tensor:
    """count samples of that shape, from noise that only the seed and the device decide."""
    generator = torch.Generator(device).manual_seed(seed)
    x_T = torch.randn(count, *shape, generator=generator, device=device)
    return sampler(model, schedule, x_T, generator=generator, progress=True, **options)


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
        "--data", default="digits", help=f"digits, {toys}, a .npy file, or a folder of pictures"
    )
    command.add_argument("--size", type=int, help="side of the pictures of a folder, in pixels")
    command.add_argument("--out", default="runs/digits", help="folder to write to")
    command.add_argument("--steps", type=int, default=4000, help="training steps in all")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    _add_device(command)
    recipe = command.add_argument_group("recipe (a resumed run keeps its own)")
    for name, choices, text in (
        ("schedule", list(SCHEDULES), "noise schedule of 1000 steps"),
        ("prediction", list(PREDICTIONS), "what the network predicts"),
        ("batch_size", None, "samples per step"),
        ("learning_rate", None, "learning rate of Adam"),
        ("ema_decay", None, "decay of the moving average of the weights"),
        ("gradient_clip", None, "largest norm of the gradient"),
        ("seed", None, "seed of the weights, the order of the data and the noise"),
    ):
        recipe.add_argument(
            f"--{name.replace('_', '-')}",
            choices=choices,
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
    command.add_argument(
        "--sampler", choices=["ddpm", "ddim"], default="ddim", help="sampler to use"
    )
    command.add_argument("--steps", type=int, help="steps to take (default: all of the schedule)")
    command.add_argument(
        "--eta",
        type=float,
        default=argparse.SUPPRESS,
        help="randomness of ddim, 0 to 1 (default: 0)",
    )
    command.add_argument(
        "--variance",
        choices=["posterior", "beta"],
        default=argparse.SUPPRESS,
        help="variance of the noise of ddpm (default: posterior)",
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
