"""The trainer: its update against one written by hand, how a batch is divided, bitwise resume."""

import copy
import csv
import math
import re
import signal
import threading
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from diffusion_lib import objectives, samplers, training
from diffusion_lib.checkpoint import load_model, resolve_device
from diffusion_lib.data import Stored, moons
from diffusion_lib.networks import MLP, UNet
from diffusion_lib.objectives import (
    OBJECTIVES,
    draw_noise,
    hybrid_loss,
    min_snr_loss,
    simple_loss,
    weighted_loss,
)
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

# 50 steps to a block, so that 30 is the middle of one.
STOPPED_AFTER, IN_ALL = 30, 60

SCHEDULE = NoiseSchedule.linear()
POINTS = moons(70, seed=0)
LABELS = torch.arange(70) % 3
IMAGES = torch.linspace(-1, 1, 10 * 64).reshape(10, 1, 8, 8)


class Own(nn.Module):
    """A user's network: no config, dropout (the global generator) and a buffer that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.5))
        self.out = nn.Linear(16, 2)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(torch.cat([x_t, t[:, None] / 1000], dim=1)))


def small_mlp() -> MLP:
    return MLP(dim=2, width=16, depth=1)


def small_unet() -> UNet:
    return UNet(width=8, multipliers=(1, 2))


def with_classes() -> MLP:
    return MLP(dim=2, width=16, depth=1, classes=3)


def with_variance() -> MLP:
    return MLP(dim=2, width=16, depth=1, learned_variance=True)


def trainer_of(make, data, **settings) -> Trainer:
    torch.manual_seed(5)
    return Trainer(make(), SCHEDULE, data, device="cpu", **settings)


def train(trainer: Trainer, steps: int) -> Trainer:
    trainer.train(steps, progress=False)
    return trainer


def states(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything a run is made of, by name."""
    found = {"losses": trainer.losses, "norms": trainer.gradient_norms}
    for name, module in (("model", trainer.model), ("ema", trainer.ema)):
        found |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        found |= {f"{index}.{name}": value for name, value in state.items()}
    for name, value in trainer._scaler.state_dict().items():
        found[f"scaler.{name}"] = torch.tensor(value)
    return found


def assert_same_run(a: Trainer, b: Trainer) -> None:
    """Bit for bit: step, losses, gradient norms, weights, average, optimiser and scale."""
    assert a.step == b.step
    one, other = states(a), states(b)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].shape == other[name].shape, name
        same = one[name] == other[name]
        assert bool((same | (one[name].isnan() & other[name].isnan())).all()), name


def noise(step: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The steps t and the noise that a run on points draws in one of its steps."""
    generator = torch.Generator().manual_seed(training._number(seed, "noise", step))
    return draw_noise(SCHEDULE, torch.empty(count, 2), generator)


class TestUpdate:
    @pytest.mark.parametrize("accumulate", [1, 3])
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_equals_a_loop_written_by_hand(self, objective, accumulate) -> None:
        """Adam, clipping, warm-up and average, step by step, each on the batch as a whole."""
        settings = {"batch_size": 16, "learning_rate": 0.01, "warmup": 3, "ema_decay": 0.6}
        settings |= {"objective": objective, "accumulate": accumulate, "gradient_clip": 0.5}
        make = with_variance if objective == "hybrid" else small_mlp
        trainer = trainer_of(make, POINTS, **settings)
        batches = [POINTS[trainer._rows(step)] for step in range(12)]
        model = copy.deepcopy(trainer.model)
        average = [p.detach().clone() for p in model.parameters()]
        train(trainer, 12)

        losses, norms = [], []
        optimizer = torch.optim.Adam(model.parameters())
        for n, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = 0.01 * min(1, (n + 1) / 4)
            t, eps = noise(n, 16)
            loss = OBJECTIVES[objective](model, SCHEDULE, batch, t=t, eps=eps)
            optimizer.zero_grad()
            loss.backward()
            norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            d = min(0.6, (1 + n) / (10 + n))
            average = [
                d * a + (1 - d) * p.detach()
                for a, p in zip(average, model.parameters(), strict=True)
            ]
            losses.append(loss.detach())
        torch.testing.assert_close(trainer.losses, torch.stack(losses), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(trainer.gradient_norms, torch.stack(norms), rtol=1e-4, atol=1e-6)
        for ours, truth in zip(trainer.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-5)
        for ours, truth in zip(trainer.ema.parameters(), average, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("batch_size", [1, 16, 35, 70, 100, 150])
    def test_every_epoch_sees_every_sample_once(self, batch_size) -> None:
        trainer = trainer_of(small_mlp, POINTS, batch_size=batch_size)
        steps = -(-3 * 70 // batch_size)
        seen = torch.cat([trainer._rows(step) for step in range(steps)])
        assert len(seen) == steps * batch_size
        epochs = seen[: 3 * 70].reshape(3, 70)
        for epoch in epochs:
            assert torch.equal(epoch.sort().values, torch.arange(70))
        assert not torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[0], torch.arange(70))

    def test_the_order_is_a_function_of_seed_and_epoch(self) -> None:
        orders = [
            trainer_of(small_mlp, POINTS, batch_size=70, seed=seed)._rows(epoch)
            for seed, epoch in [(0, 1), (1, 1), (1, 0), (1, 1)]
        ]
        assert torch.equal(orders[1], orders[3])
        for i in range(3):
            assert not torch.equal(orders[i], orders[(i + 1) % 3])

    def test_buffers_follow_the_model(self) -> None:
        """Running statistics of a BatchNorm belong to the averaged model as they are."""
        trainer = train(trainer_of(Own, POINTS, batch_size=16), 3)
        pairs = list(zip(trainer.ema.buffers(), trainer.model.buffers(), strict=True))
        assert len(pairs) == 3
        for averaged, own in pairs:
            assert torch.equal(averaged, own)
            assert own.abs().max() > 0

    def test_learns(self) -> None:
        """The average predicts the noise better than zero does, and than it did untrained."""
        trainer = trainer_of(lambda: MLP(2, 64, 2), moons(2000), batch_size=256, learning_rate=3e-3)
        train(trainer, 300)
        loss = simple_loss(
            trainer.ema, SCHEDULE, moons(4000, seed=1), generator=torch.Generator().manual_seed(0)
        )
        assert loss < 0.5  # 1 when it answers zero
        assert trainer.losses[-50:].mean() < 0.6 * trainer.losses[:5].mean()

    def test_the_noise_is_uniform_and_normal_over_the_steps(self) -> None:
        """Every step seeds its generator anew; together the draws are as from one stream."""
        drawn = [noise(step, 16) for step in range(2000)]
        t = torch.cat([steps for steps, _ in drawn]).double()
        eps = torch.stack([values for _, values in drawn]).double()
        count = t.numel()
        assert abs(t.mean() - 500.5) < 5 * math.sqrt((1000**2 - 1) / 12 / count)
        assert abs(eps.mean()) < 5 / math.sqrt(eps.numel())
        assert abs(eps.square().mean() - 1) < 5 * math.sqrt(2 / eps.numel())
        neighbours = (eps[1:] * eps[:-1]).flatten()  # of the same place in two steps
        assert abs(neighbours.mean()) < 5 / math.sqrt(neighbours.numel())
        assert len({tuple(values.flatten().tolist()) for values in eps}) == 2000

    def test_the_caller_keeps_their_random_numbers(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        trainer = trainer_of(Own, POINTS, batch_size=16)
        torch.manual_seed(3)
        train(trainer, 4)
        assert torch.equal(torch.rand(4), expected)


class TestParts:
    """Micro-batches and processes take slices of one batch."""

    @pytest.mark.parametrize("batch_size", [6, 7, 64, 100])
    @pytest.mark.parametrize("accumulate", [1, 2, 3])
    @pytest.mark.parametrize("processes", [1, 2])
    def test_are_the_batch_each_sample_once(self, batch_size, accumulate, processes) -> None:
        parts = [
            part
            for process in range(processes)
            for part in training._parts(batch_size, accumulate, processes, process)
        ]
        rows = [row for part in parts for row in range(batch_size)[part.rows]]
        assert rows == list(range(batch_size))
        assert [part.number for part in parts] == list(range(processes * accumulate))
        for part in parts:
            share = len(range(batch_size)[part.rows]) / batch_size
            assert part.share == pytest.approx(share * processes, rel=1e-15)

    @pytest.mark.parametrize("accumulate", [2, 3, 16])
    def test_accumulation_changes_rounding_alone(self, accumulate) -> None:
        whole = train(trainer_of(with_classes, POINTS, labels=LABELS, batch_size=16), 30)
        parts = train(
            trainer_of(with_classes, POINTS, labels=LABELS, batch_size=16, accumulate=accumulate),
            30,
        )
        torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-5, atol=0)
        for one, other in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)

    def test_a_network_draws_anew_for_every_part(self) -> None:
        class Drawing(nn.Linear):
            def forward(self, x_t, t):
                drawn.append(torch.rand(3))
                return super().forward(x_t)

        drawn = []
        train(trainer_of(lambda: Drawing(2, 2), POINTS, batch_size=4, accumulate=2), 3)
        assert len({tuple(numbers.tolist()) for numbers in drawn}) == 6


class Recording(nn.Module):
    """A network of one's own that remembers its labels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x_t, t, labels):
        self.seen.append(labels)
        return self.weight * x_t


class TestLabels:
    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_a_share_is_replaced_by_none_and_the_others_are_the_samples_own(self, share) -> None:
        trainer = trainer_of(Recording, POINTS, labels=LABELS, label_dropout=share, batch_size=40)
        train(trainer, 100)
        given = torch.cat(trainer.model.seen)
        true = torch.cat([LABELS[trainer._rows(step)] for step in range(100)])
        dropped = given != true
        assert torch.equal(given[dropped], torch.full_like(given[dropped], 3))
        deviation = math.sqrt(share * (1 - share) / len(given))
        assert abs(dropped.double().mean() - share) <= 4 * deviation

    def test_dropping_changes_no_other_noise(self) -> None:
        runs = [
            train(trainer_of(Recording, POINTS, labels=LABELS, label_dropout=share), 5)
            for share in (0.0, 1.0)
        ]
        assert torch.equal(runs[0].losses, runs[1].losses)

    def test_none_is_the_networks_last_row(self) -> None:
        """K of the network, not of the labels that happen to be there."""
        trainer = trainer_of(
            lambda: MLP(2, 16, 1, classes=7), POINTS, labels=LABELS, label_dropout=1.0
        )
        before = trainer.model.label.weight.detach().clone()
        train(trainer, 3)
        changed = (trainer.model.label.weight != before).any(dim=1)
        assert changed.tolist() == [False] * 7 + [True]

    def test_labels_make_a_difference_that_a_sampler_sees(self) -> None:
        """Two far points, each with its own label: told the label, the network knows the point."""
        data, labels = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), torch.tensor([0, 1])
        trainer = trainer_of(
            lambda: MLP(2, 32, 2, classes=2),
            data,
            labels=labels,
            label_dropout=0.2,
            prediction="x_0",
            learning_rate=0.01,
            batch_size=64,
        )
        train(trainer, 300)
        x_T = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
        answer = trainer.ema(x_T, torch.tensor([1000, 1000]), labels)
        assert (answer - data).abs().max() < 0.3
        unlabelled = trainer.ema(x_T, torch.tensor([1000, 1000]))
        assert unlabelled.abs().max() < 1.0


class Halved:
    """Samples that are not in memory: they are read by row, and what was read is noted."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data, self.shape, self.read = data, data.shape, []

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        self.read.append(rows)
        return self.data[rows]

    def wider(self) -> "Halved":
        """The same samples, said to be wider than they are."""
        self.shape = torch.Size((len(self.data), self.data.shape[1] + 1))
        return self


class TestStoredSamples:
    def test_train_as_a_tensor_does(self) -> None:
        arrays = POINTS.numpy()
        for samples in (Stored(arrays), Halved(POINTS)):
            assert_same_run(
                train(trainer_of(small_mlp, samples, batch_size=16), 12),
                train(trainer_of(small_mlp, POINTS, batch_size=16), 12),
            )

    def test_only_the_rows_of_a_part_are_read(self) -> None:
        samples = Halved(POINTS)
        trainer = trainer_of(small_mlp, samples, batch_size=16, accumulate=2)
        samples.read.clear()
        train(trainer, 5)
        assert [len(rows) for rows in samples.read] == [8] * 10
        assert torch.equal(torch.cat(samples.read[:2]), trainer._rows(0))

    def test_resume_takes_them_for_the_tensor_they_hold(self, tmp_path) -> None:
        train(trainer_of(small_mlp, POINTS, batch_size=16), 3).save(tmp_path / "run.safetensors")
        resumed = Trainer.resume(tmp_path / "run.safetensors", Halved(POINTS), device="cpu")
        straight = train(trainer_of(small_mlp, POINTS, batch_size=16), 6)
        assert_same_run(train(resumed, 3), straight)
        with pytest.raises(ValueError, match="not the values"):
            Trainer.resume(tmp_path / "run.safetensors", Halved(POINTS + 1), device="cpu")


class TestPrecision:
    @pytest.mark.parametrize(
        ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
    )
    def test_the_network_computes_in_it_and_nothing_else_does(self, precision, dtype) -> None:
        trainer = trainer_of(small_mlp, POINTS, precision=precision, gradient_clip=1.0)
        seen = []
        trainer.model.layers[0].register_forward_hook(lambda *call: seen.append(call[2].dtype))
        train(trainer, 5)
        assert set(seen) == {dtype}
        for name, value in states(trainer).items():
            assert value.dtype in (torch.float32, torch.int64), name
        full = train(trainer_of(small_mlp, POINTS, gradient_clip=1.0), 5)
        unit = 2.0**-8 if precision == "bf16" else 2.0**-10
        assert 0 < (trainer.losses - full.losses).abs().max() < 4 * unit
        torch.testing.assert_close(trainer.gradient_norms, full.gradient_norms, rtol=0.05, atol=0)

    def test_a_gradient_that_overflows_in_fp16_changes_no_weight(self) -> None:
        trainer = trainer_of(small_mlp, POINTS, precision="fp16", gradient_clip=1.0)
        trainer._scaler.load_state_dict(trainer._scaler.state_dict() | {"scale": 2.0**40})
        before = copy.deepcopy(trainer.model.state_dict())
        train(trainer, 2)
        assert trainer._scaler.get_scale() == 2.0**38
        for name, value in trainer.model.state_dict().items():
            assert torch.equal(value, before[name])
        train(trainer, 60)
        assert trainer._scaler.get_scale() < 2.0**30
        assert trainer.losses[-20:].mean() < 1.0


class TestLog:
    def rows(self, path) -> list[dict[str, str]]:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))

    def test_one_line_a_step(self, tmp_path) -> None:
        trainer = train(trainer_of(small_mlp, POINTS, gradient_clip=1.0, warmup=3), 10)
        trainer.write_log(tmp_path / "log.csv")
        rows = self.rows(tmp_path / "log.csv")
        assert list(rows[0]) == ["step", "loss", "learning_rate", "gradient_norm"]
        assert [int(row["step"]) for row in rows] == list(range(1, 11))
        for name, values in (("loss", trainer.losses), ("gradient_norm", trainer.gradient_norms)):
            written = torch.tensor([float(row[name]) for row in rows])
            assert torch.equal(written, values)
        rates = [float(row["learning_rate"]) for row in rows]
        assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, *[1e-3] * 7], rel=1e-8)

    def test_appended_it_is_what_would_be_written_at_once(self, tmp_path) -> None:
        trainer = trainer_of(small_mlp, POINTS)
        done = 0
        for steps in (3, 4, 5):
            train(trainer, steps).write_log(tmp_path / "a.csv", since=done)
            done = trainer.step
        trainer.write_log(tmp_path / "b.csv")
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
        assert {row["gradient_norm"] for row in self.rows(tmp_path / "a.csv")} == {"nan"}


SETTINGS = [
    (small_mlp, POINTS, {"batch_size": 35}),
    (small_mlp, POINTS, {"batch_size": 16}),
    (small_unet, IMAGES, {"batch_size": 4}),
    (Own, POINTS, {"batch_size": 16}),
    (with_classes, POINTS, {"batch_size": 16, "labels": LABELS, "label_dropout": 0.3}),
    (with_variance, POINTS, {"batch_size": 16, "objective": "hybrid", "prediction": "v"}),
    (Own, POINTS, {"batch_size": 17, "accumulate": 4, "gradient_clip": 0.1}),
    (small_mlp, POINTS, {"batch_size": 16, "precision": "bf16"}),
    (small_mlp, POINTS, {"batch_size": 16, "precision": "fp16", "objective": "min_snr"}),
]


@pytest.mark.parametrize(("make", "data", "settings"), SETTINGS)
class TestSameBits:
    def test_one_seed_one_run(self, make, data, settings) -> None:
        runs = [train(trainer_of(make, data, **settings), 12) for _ in range(2)]
        assert_same_run(*runs)
        other = train(trainer_of(make, data, **settings, seed=1), 12)
        assert not torch.equal(other.losses, runs[0].losses)

    def test_resume_goes_on_as_if_never_stopped(self, make, data, settings, tmp_path) -> None:
        """10 + save + resume + 10 equals 20, whatever else used random numbers in between."""
        straight = train(trainer_of(make, data, **settings), 20)
        first = train(trainer_of(make, data, **settings), 10)
        first.save(tmp_path / "run.safetensors")
        torch.manual_seed(99)
        model = Own() if make is Own else None
        resumed = Trainer.resume(
            tmp_path / "run.safetensors",
            data,
            labels=settings.get("labels"),
            model=model,
            device="cpu",
        )
        assert_same_run(resumed, first)
        assert_same_run(train(resumed, 10), straight)
        assert_same_run(train(first, 10), straight)  # saving changed nothing


def as_simple(snr: np.ndarray) -> np.ndarray:
    return snr


class TestOwnObjective:
    """A function in place of a name: any weighting, and the options of the named ones."""

    @pytest.mark.parametrize(
        ("make", "named", "own"),
        [
            (small_mlp, "simple", simple_loss),
            (small_mlp, "simple", partial(weighted_loss, weight=as_simple)),
            (small_mlp, "min_snr", partial(min_snr_loss, gamma=5.0)),
            (with_variance, "hybrid", partial(hybrid_loss, bound_weight=0.001)),
        ],
        ids=["simple", "weighted", "min_snr", "hybrid"],
    )
    def test_equals_the_named_one_with_its_defaults(self, make, named, own) -> None:
        want = train(trainer_of(make, POINTS, objective=named, batch_size=16), 5)
        trainer = train(trainer_of(make, POINTS, objective=own, batch_size=16), 5)
        torch.testing.assert_close(trainer.losses, want.losses, rtol=1e-4, atol=1e-6)

    def test_its_options_reach_the_loss(self) -> None:
        runs = [
            train(trainer_of(small_mlp, POINTS, objective=partial(min_snr_loss, gamma=gamma)), 3)
            for gamma in (0.1, 5.0)
        ]
        assert (runs[0].losses < runs[1].losses).all()

    def test_it_comes_back_with_the_run(self, tmp_path) -> None:
        path, own = tmp_path / "run.safetensors", partial(min_snr_loss, gamma=1.0)
        straight = train(trainer_of(small_mlp, POINTS, objective=own), 6)
        first = train(trainer_of(small_mlp, POINTS, objective=own), 3)
        first.save(path)
        for objective in (None, "simple"):
            with pytest.raises(ValueError, match="a function of your own; pass it as objective"):
                Trainer.resume(path, POINTS, objective=objective)
        resumed = Trainer.resume(path, POINTS, objective=own, device="cpu")
        assert_same_run(train(resumed, 3), straight)
        train(trainer_of(small_mlp, POINTS), 1).save(path)
        with pytest.raises(ValueError, match="with 'simple'; leave objective out"):
            Trainer.resume(path, POINTS, objective=own)


def test_tensors_are_made_where_the_run_is(tmp_path) -> None:
    """Whatever the caller's default device is; meta stands for a GPU, and gives no value back."""
    path = tmp_path / "run.safetensors"
    trainer = trainer_of(with_classes, POINTS, labels=LABELS, batch_size=16)
    with torch.device("meta"):
        train(trainer, 3).save(path)
        resumed = Trainer.resume(path, POINTS, labels=LABELS, device="cpu")
        train(resumed, 2)
    straight = trainer_of(with_classes, POINTS, labels=LABELS, batch_size=16)
    assert_same_run(resumed, train(straight, 5))


def test_the_default_dtype_of_torch_changes_nothing(tmp_path) -> None:
    """Somebody who works in double precision elsewhere still gets the same run."""
    path = tmp_path / "run.safetensors"

    def run() -> Trainer:
        settings = {"labels": LABELS, "batch_size": 16, "accumulate": 3, "gradient_clip": 1.0}
        return trainer_of(with_classes, POINTS, label_dropout=0.5, **settings)

    straight, begun = train(run(), 5), run()
    torch.set_default_dtype(torch.float64)
    try:
        train(begun, 3).save(path)
        resumed = Trainer.resume(path, POINTS, labels=LABELS, device="cpu")
        assert_same_run(train(resumed, 2), straight)
    finally:
        torch.set_default_dtype(torch.float32)


class Predicting(nn.Module):
    """A network with a layer of a name that the trainer has a use for."""

    def __init__(self) -> None:
        super().__init__()
        self.prediction = nn.Linear(2, 2)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.prediction(x_t)


def test_a_layer_called_prediction_stays_one(tmp_path) -> None:
    trainer = train(trainer_of(Predicting, POINTS, prediction="v"), 3)
    trainer.save(tmp_path / "run.safetensors")
    model, _, _ = load_model(tmp_path / "run.safetensors", model=Predicting(), device="cpu")
    x_T = torch.ones(3, 2)
    for network in (trainer.ema, model):
        assert isinstance(network.prediction, nn.Linear)
        ends = {
            kind: samplers.ddim(network, SCHEDULE.strided(5), x_T, prediction=kind)
            for kind in ("eps", "v")
        }
        assert not torch.equal(ends["eps"], ends["v"])
        # What it predicts has to be said, because the model does not.
        assert torch.equal(samplers.ddim(network, SCHEDULE.strided(5), x_T), ends["eps"])


def test_gradients_end_at_the_data() -> None:
    """Codes from somebody's encoder carry the graph that made them."""
    encoder = nn.Linear(2, 2)
    for data in (encoder(POINTS), POINTS.clone().requires_grad_()):
        for samples in (data, Halved(data)):
            trained = train(trainer_of(small_mlp, samples, batch_size=16), 3)
            plain = train(trainer_of(small_mlp, data.detach(), batch_size=16), 3)
            assert_same_run(trained, plain)
        assert encoder.weight.grad is None
        assert not data.is_leaf or data.grad is None


def failing(trainer: Trainer, error: BaseException, call: int) -> None:
    """Let that call of the model do its work, use up random numbers, and then fail."""
    forward, calls = trainer.model.forward, []

    def failing_forward(*arguments):
        calls.append(None)
        output = forward(*arguments)
        if len(calls) == call:
            torch.rand(3)
            raise error
        return output

    trainer.model.forward = failing_forward


class TestStoppedInTheMiddle:
    """Whatever stops a run, what is left is the run of that many steps, bit for bit."""

    @pytest.fixture(autouse=True)
    def python_hears_of_control_c(self):
        """Also where the tests run in the background of a shell, which lets them ignore it."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("make", [small_mlp, Own])
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
    def test_by_an_error_in_the_model(self, make, error, tmp_path) -> None:
        stopped = trainer_of(make, POINTS, batch_size=16)
        failing(stopped, error, call=STOPPED_AFTER + 1)
        with pytest.raises(type(error)):
            train(stopped, IN_ALL)
        assert_same_run(stopped, train(trainer_of(make, POINTS, batch_size=16), STOPPED_AFTER))
        stopped.save(tmp_path / "run.safetensors")
        straight = train(trainer_of(make, POINTS, batch_size=16), IN_ALL)
        assert_same_run(train(stopped, IN_ALL - STOPPED_AFTER), straight)
        model = Own() if make is Own else None
        path = tmp_path / "run.safetensors"
        resumed = Trainer.resume(path, POINTS, model=model, device="cpu")
        assert_same_run(train(resumed, IN_ALL - STOPPED_AFTER), straight)

    @pytest.mark.parametrize("place", ["model", "optimizer"])
    def test_by_control_c(self, place, monkeypatch) -> None:
        """The step at hand is finished first, wherever in it the signal arrives."""
        stopped = trainer_of(Own, POINTS, batch_size=16)
        owner, name = {
            "model": (stopped.model, "forward"),
            "optimizer": (stopped.optimizer, "step"),
        }[place]
        original, calls = getattr(owner, name), []

        def pressing(*arguments):
            calls.append(None)
            if len(calls) == STOPPED_AFTER:
                signal.raise_signal(signal.SIGINT)
            return original(*arguments)

        monkeypatch.setattr(owner, name, pressing)
        with pytest.raises(KeyboardInterrupt):
            train(stopped, IN_ALL)
        assert stopped.step == len(stopped.losses) == STOPPED_AFTER
        straight = train(trainer_of(Own, POINTS, batch_size=16), IN_ALL)
        assert_same_run(train(stopped, IN_ALL - STOPPED_AFTER), straight)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_second_control_c_does_not_wait(self) -> None:
        reached = []

        def press_twice() -> None:
            with training._interrupt_held_back():
                for time in ("first", "second"):
                    signal.raise_signal(signal.SIGINT)
                    reached.append(time)

        with pytest.raises(KeyboardInterrupt):
            press_twice()
        assert reached == ["first"]

    def test_other_handlers_and_threads_are_left_alone(self, monkeypatch) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            train(trainer_of(small_mlp, POINTS), 1)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, previous)
        trainer = trainer_of(small_mlp, POINTS)
        thread = threading.Thread(target=train, args=(trainer, 1))
        thread.start()
        thread.join()
        assert trainer.step == 1


class TestResume:
    def test_schedule_and_settings_come_back(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        schedule = NoiseSchedule.cosine(100).strided(7)
        settings = {"prediction": "v", "batch_size": 8, "learning_rate": 0.1, "seed": 4}
        Trainer(small_mlp(), schedule, POINTS, device="cpu", **settings).save(path, by="hand")
        resumed = Trainer.resume(path, POINTS, device="cpu")
        assert resumed.schedule == schedule
        assert resumed.settings.items() >= settings.items()
        assert load_model(path)[2]["by"] == "hand"

    def test_other_data_are_refused(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        train(trainer_of(small_mlp, POINTS), 1).save(path)
        with pytest.raises(ValueError, match=r"\(60, 2\).*trained on \(70, 2\)"):
            Trainer.resume(path, POINTS[:60])
        with pytest.raises(ValueError, match="not the values"):
            Trainer.resume(path, POINTS + 1)

    def test_other_labels_are_refused(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        train(trainer_of(with_classes, POINTS, labels=LABELS), 1).save(path)
        for labels, said in [(None, "none are given"), ((LABELS + 1) % 3, "these are given")]:
            with pytest.raises(ValueError, match=f"trained with labels, and {said}"):
                Trainer.resume(path, POINTS, labels=labels)
        train(trainer_of(small_mlp, POINTS), 1).save(path)
        with pytest.raises(ValueError, match="trained without labels, and these are given"):
            Trainer.resume(path, POINTS, labels=LABELS)

    def test_compiled_model_saves_under_its_own_names(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        model = torch.compile(small_mlp(), backend="eager")
        trainer = Trainer(model, SCHEDULE, POINTS, batch_size=8, device="cpu")
        train(trainer, 2).save(path)
        assert not any("_orig_mod" in name for name in safetensors.torch.load_file(path))
        x, t = POINTS[:4], torch.tensor([1, 2, 3, 4])
        assert torch.equal(load_model(path, device="cpu")[0](x, t), trainer.ema(x, t))

    def test_tied_weights(self, tmp_path) -> None:
        def tied() -> MLP:
            model = MLP(dim=2, width=16, depth=2)
            model.layers[1].weight = model.layers[0].weight
            return model

        path = tmp_path / "run.safetensors"
        straight = train(trainer_of(tied, POINTS, batch_size=8), 6)
        train(trainer_of(tied, POINTS, batch_size=8), 3).save(path)
        resumed = Trainer.resume(path, POINTS, model=tied(), device="cpu")
        assert_same_run(train(resumed, 3), straight)

    def test_what_misfits_leaves_the_model_as_it_was(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        train(trainer_of(small_mlp, POINTS, batch_size=8), 1).save(path)
        fitting, wider = small_mlp(), MLP(dim=2, width=32, depth=1)
        for model, device, match in [
            (wider, "cpu", r"do not fit the model: time\.weight is \(16, 16\) .* \(32, 32\)"),
            (fitting, "cuda:99", "device is 'cuda:99'"),
        ]:
            before = copy.deepcopy(model.state_dict())
            with pytest.raises(ValueError, match=match):
                load_model(path, model=model, device=device)
            with pytest.raises(ValueError, match=match):
                Trainer.resume(path, POINTS, model=model, device=device)
            for name, value in model.state_dict().items():
                assert torch.equal(value, before[name])

    def test_a_network_of_ones_own_must_be_given(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        train(trainer_of(Own, POINTS, batch_size=8), 1).save(path)
        with pytest.raises(ValueError, match="network of your own"):
            load_model(path)
        with pytest.raises(ValueError, match="do not fit"):
            load_model(path, model=small_mlp())
        load_model(path, model=Own())


class TestExport:
    def test_holds_the_average_and_nothing_to_resume(self, tmp_path) -> None:
        trainer = train(trainer_of(small_mlp, POINTS, batch_size=8), 5)
        path = tmp_path / "model.safetensors"
        trainer.export(path)
        model, schedule, info = load_model(path, device="cpu")
        assert not model.training
        assert schedule == SCHEDULE
        assert info["step"] == 5
        assert info["data_shape"] == [70, 2]
        x, t = POINTS[:4], torch.tensor([1, 2, 3, 4])
        assert torch.equal(model(x, t), trainer.ema(x, t))
        assert not torch.equal(model(x, t), trainer.model(x, t))
        with pytest.raises(ValueError, match="not a run to resume"):
            Trainer.resume(path, POINTS)


class TestALossThatIsNotFinite:
    def test_stops_with_step_checkpoint_and_advice(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        trainer = trainer_of(small_mlp, POINTS.clone(), batch_size=8)
        train(trainer, 60).save(path)
        before = path.read_bytes()
        train(trainer, 3)
        trainer.data[:] = float("nan")
        sentence = (
            rf"loss became nan at step 64; {re.escape(str(path))} holds the good weights of step "
            r"60 .*smaller learning_rate \(now 0\.001\), gradient_clip"
        )
        with pytest.raises(FloatingPointError, match=sentence):
            train(trainer, 60)
        assert trainer.step == len(trainer.losses) == len(trainer.gradient_norms) == 63
        with pytest.raises(FloatingPointError, match=r"was not written: the loss became nan"):
            trainer.save(path)
        assert path.read_bytes() == before
        resumed = Trainer.resume(path, POINTS.clone(), device="cpu")
        resumed.data[:] = float("nan")
        with pytest.raises(FloatingPointError, match=f"at step 61; {re.escape(str(path))} holds"):
            train(resumed, 1)

    @pytest.mark.parametrize("scaled", [True, False])
    def test_the_run_is_over_also_where_the_weights_stayed_finite(self, tmp_path, scaled) -> None:
        """In fp16 a step without a finite gradient changes no weight; and a loss may be infinite
        while its gradient is not. The losses are looked at 44 steps later."""
        losses = [0]

        def infinite_once(*arguments, **options):
            losses[0] += 1
            return simple_loss(*arguments, **options) + (math.inf if losses[0] == 7 else 0.0)

        precision = "fp16" if scaled else "fp32"
        trainer = trainer_of(small_mlp, POINTS, objective=infinite_once, precision=precision)
        trainer.save(tmp_path / "run.safetensors")
        before = (tmp_path / "run.safetensors").read_bytes()
        with pytest.raises(FloatingPointError, match="loss became inf at step 7"):
            train(trainer, 60)
        assert all(weight.isfinite().all() for weight in trainer.model.parameters())
        for go_on in (
            lambda: trainer.save(tmp_path / "run.safetensors"),
            lambda: trainer.export(tmp_path / "run.safetensors"),
            lambda: trainer.train(1),
        ):
            with pytest.raises(FloatingPointError, match="loss became inf at step 7"):
                go_on()
        assert trainer.step == 6
        assert (tmp_path / "run.safetensors").read_bytes() == before

    def test_without_a_checkpoint(self) -> None:
        trainer = trainer_of(small_mlp, POINTS.clone(), precision="bf16")
        trainer.data[:] = float("inf")
        with pytest.raises(
            FloatingPointError, match=r'at step 1; no checkpoint .* precision="fp32"'
        ):
            train(trainer, 1)


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"batch_size": 0}, "batch_size is 0"),
            ({"learning_rate": -1.0}, "learning_rate is -1"),
            ({"learning_rate": float("nan")}, "learning_rate is nan"),
            ({"warmup": -1}, "warmup is -1"),
            (
                {"ema_decay": 1.0},
                r"ema_decay is 1\.0; it must be a number of 0 or more and below 1",
            ),
            ({"gradient_clip": 0.0}, "gradient_clip is 0"),
            ({"prediction": "noise"}, "prediction is 'noise'"),
            ({"seed": -1}, "seed is -1"),
            ({"seed": 2**63}, r"seed is 9223372036854775808.*0\.\.9223372036854775807"),
            ({"seed": 1.5}, r"seed is 1\.5"),
            ({"batch_size": 2.5}, r"batch_size is 2\.5"),
            ({"warmup": 1.5}, r"warmup is 1\.5"),
            ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
            ({"ema_decay": None}, "ema_decay is None"),
            ({"gradient_clip": "1"}, "gradient_clip is '1'"),
            ({"objective": "elbo"}, "objective is 'elbo'; it must be one of simple, min_snr, hyb"),
            ({"objective": ["simple"]}, "objective is \\['simple'\\]"),
            (
                {"objective": "hybrid"},
                "objective is 'hybrid' and the network has learned_variance=F",
            ),
            ({"precision": "fp8"}, "precision is 'fp8'; it must be one of fp32, bf16, fp16"),
            ({"accumulate": 0}, "accumulate is 0"),
            ({"accumulate": 3, "batch_size": 2}, "batch_size is 2; it must be at least 3"),
            ({"label_dropout": 1.5}, r"label_dropout is 1\.5; it must be a number in 0\.\.1"),
            ({"label_dropout": -0.5}, r"label_dropout is -0\.5"),
            ({"labels": LABELS}, "labels are given, but the network has classes=None"),
            ({"device": "tpu9"}, "device is 'tpu9'"),
            ({"device": None}, "device is None"),
            ({"device": "cpu:1"}, "device is 'cpu:1'; this machine has cpu:0"),
        ],
    )
    def test_settings(self, settings, match) -> None:
        with pytest.raises(ValueError, match=match):
            Trainer(small_mlp(), SCHEDULE, POINTS, **settings)

    @pytest.mark.parametrize(
        ("data", "match"),
        [
            (torch.zeros(3, 2, dtype=torch.int64), "int64"),
            (np.zeros((3, 2)), "ndarray"),
            (torch.zeros(3), r"shape \(3,\)"),
            (torch.zeros(0, 2), r"shape \(0, 2\)"),
            (torch.tensor([[1.0, float("inf")]]), "not finite"),
            ({}, "data is dict"),
            (Halved(POINTS.double()), r"torch\.float64 of shape \(1, 2\); .* torch\.float32 of"),
            (
                Halved(POINTS).wider(),
                r"shape \(1, 2\); it must be .* \(1, 3\)",
            ),
        ],
    )
    def test_data(self, data, match) -> None:
        with pytest.raises(ValueError, match=match):
            Trainer(small_mlp(), SCHEDULE, data)

    @pytest.mark.parametrize(
        ("labels", "match"),
        [
            (LABELS[:60], r"labels is torch\.int64 of shape \(60,\); .* shape \(70,\)"),
            (LABELS.float(), r"labels is torch\.float32"),
            (LABELS.tolist(), "labels is list"),
            (LABELS + 1, r"from 1 to 3; they must be 0\.\.2"),
            (LABELS - 1, r"from -1 to 1; they must be 0\.\.2"),
        ],
    )
    def test_labels(self, labels, match) -> None:
        with pytest.raises(ValueError, match=match):
            Trainer(with_classes(), SCHEDULE, POINTS, labels=labels)

    def test_what_cannot_be_learned_is_said_before_the_first_step(self) -> None:
        with pytest.raises(ValueError, match="pure noise"):
            Trainer(small_mlp(), SCHEDULE.zero_terminal(), POINTS)
        Trainer(small_mlp(), SCHEDULE.zero_terminal(), POINTS, prediction="v")
        with pytest.raises(ValueError, match=r"objective is 'simple'.*learned_variance=True"):
            Trainer(with_variance(), SCHEDULE, POINTS)

    @pytest.mark.parametrize("steps", [0, 2.5, "3", True])
    def test_steps(self, steps) -> None:
        with pytest.raises(ValueError, match=f"steps is {steps!r}; it must be an integer of at"):
            trainer_of(small_mlp, POINTS).train(steps)

    def test_callback(self) -> None:
        trainer = trainer_of(small_mlp, POINTS)
        with pytest.raises(ValueError, match="callback is 5; it must be callable"):
            trainer.train(3, callback=5)
        assert trainer.step == 0

    @pytest.mark.parametrize(
        ("returned", "match"),
        [
            (lambda loss: loss.expand(3), "returned tensor"),
            (lambda loss: loss[None], "returned tensor"),
            (lambda loss: loss.item(), r"returned \d"),
            (lambda loss: loss.detach(), "returned a number without a gradient"),
            (lambda loss: None, "returned None"),
        ],
        ids=["many", "a row", "a float", "detached", "nothing"],
    )
    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_what_an_objective_returns(self, returned, match, accumulate) -> None:
        def own(*arguments, **options):
            return returned(simple_loss(*arguments, **options))

        trainer = trainer_of(small_mlp, POINTS, objective=own, accumulate=accumulate)
        before = copy.deepcopy(trainer.model.state_dict())
        with pytest.raises(ValueError, match=f"{match}.*; it must be one floating-point number"):
            train(trainer, 1)
        assert trainer.step == 0
        for name, weight in trainer.model.state_dict().items():
            assert torch.equal(weight, before[name])

    def test_nothing_to_train(self) -> None:
        for model in (nn.Identity(), small_mlp().requires_grad_(False)):
            with pytest.raises(ValueError, match="no weight that can be trained"):
                Trainer(model, SCHEDULE, POINTS)
            assert "prediction" not in vars(model)

    @pytest.mark.parametrize(
        "labels", [LABELS.tolist(), LABELS.numpy(), torch.tensor(1), LABELS.float()]
    )
    def test_labels_of_a_resumed_run(self, labels, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        train(trainer_of(with_classes, POINTS, labels=LABELS), 1).save(path)
        with pytest.raises(ValueError, match="labels is .*; it must be int64 of shape"):
            Trainer.resume(path, POINTS, labels=labels)

    def test_an_index_error_that_labels_did_not_make_is_not_blamed_on_them(self) -> None:
        trainer = trainer_of(with_classes, POINTS, labels=LABELS, label_dropout=0.0)
        failing(trainer, IndexError("list index out of range"), call=1)
        with pytest.raises(IndexError, match="list index out of range"):
            train(trainer, 1)

    def test_accelerator(self) -> None:
        accelerate = pytest.importorskip("accelerate")
        with pytest.raises(ValueError, match="accelerator is 'cpu'; it must be an Accelerator"):
            Trainer(small_mlp(), SCHEDULE, POINTS, accelerator="cpu")
        mixed = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        try:
            with pytest.raises(ValueError, match="mixed_precision='bf16'; it must be 'no'"):
                Trainer(small_mlp(), SCHEDULE, POINTS, accelerator=mixed)
        finally:
            accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)

    def test_weights_are_float32(self) -> None:
        with pytest.raises(ValueError, match=r"weight \S+ is torch\.float64; .* model\.float\(\)"):
            Trainer(small_mlp().double(), SCHEDULE, POINTS)

    def test_model_and_schedule(self) -> None:
        with pytest.raises(ValueError, match=r"model is function; it must be a torch\.nn\.Module"):
            Trainer(lambda x_t, t: x_t, SCHEDULE, POINTS)
        with pytest.raises(ValueError, match="schedule is 'linear'; it must be a NoiseSchedule"):
            Trainer(small_mlp(), "linear", POINTS)

    def test_a_cuda_device_that_is_not_there(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert resolve_device("cuda:1") == torch.device("cuda", 1)
        assert resolve_device() == torch.device("cuda")
        with pytest.raises(ValueError, match=r"'cuda:99'; .* cpu:0, cuda:0, cuda:1\.$"):
            resolve_device("cuda:99")

    @pytest.mark.parametrize(("kind", "fused"), [("cpu", True), ("meta", False)])
    def test_the_fused_optimiser_is_used_where_torch_has_it(self, kind, fused, monkeypatch) -> None:
        """Not on MPS, before torch 2.5; the meta device stands for every other kind here."""
        monkeypatch.setattr(training, "resolve_device", torch.device)
        monkeypatch.setattr(torch, "Generator", lambda device: None)
        trainer = Trainer(small_mlp(), SCHEDULE, POINTS, device=kind)
        assert trainer.optimizer.defaults["fused"] is fused

    def test_digest_of_very_many_samples(self) -> None:
        """float32 cannot count to 2^24 + 3: its last row would lie outside."""
        training._digest(torch.zeros(1, 1).expand(2**24 + 4, 1))

    def test_absent_device(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match=r"device is 'cuda'; this machine has cpu"):
            resolve_device("cuda")


class TestNoWaiting:
    def test_losses_are_read_in_blocks(self, monkeypatch) -> None:
        """No step reads a value back from the device: that would stall a GPU once per step."""
        monkeypatch.setattr(objectives, "check_steps", lambda *_, **__: None)  # on the CPU alone
        reads = []
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            original = getattr(torch.Tensor, name)

            def counted(tensor, *args, original=original, **kwargs):
                reads.append(original)
                return original(tensor, *args, **kwargs)

            monkeypatch.setattr(torch.Tensor, name, counted)

        def reads_of(steps: int) -> int:
            trainer = trainer_of(small_mlp, POINTS, batch_size=8, gradient_clip=1.0)
            train(trainer, 1)
            reads.clear()
            train(trainer, steps)
            return len(reads)

        assert reads_of(training.BLOCK) == reads_of(5)
