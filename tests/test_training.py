"""The trainer: its update against one written by hand, bitwise resume, files that stay whole."""

import copy
import json
import os
import re
import signal
import threading

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from diffusion_lib import samplers, training
from diffusion_lib.data import digit_labels, digits, moons
from diffusion_lib.networks import MLP, UNet
from diffusion_lib.objectives import simple_loss
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer, load_model, load_pretrained, resolve_device

# 50 steps to a block, so that 30 is the middle of one.
STOPPED_AFTER, IN_ALL = 30, 60

SCHEDULE = NoiseSchedule.linear()
POINTS = moons(70, seed=0)
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


def trainer_of(make, data, **settings) -> Trainer:
    torch.manual_seed(5)
    return Trainer(make(), SCHEDULE, data, device="cpu", **settings)


def train(trainer: Trainer, steps: int) -> Trainer:
    trainer.train(steps, progress=False)
    return trainer


def assert_same_run(a: Trainer, b: Trainer) -> None:
    """Bit for bit: step, losses, weights, average, optimiser and the state of the noise."""
    assert a.step == b.step
    assert torch.equal(a.losses, b.losses)
    for one, other in [
        (a.model.state_dict(), b.model.state_dict()),
        (a.ema.state_dict(), b.ema.state_dict()),
        (a._random, b._random),
    ]:
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
    states = a.optimizer.state_dict()["state"], b.optimizer.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for index in states[0]:
        for name in states[0][index]:
            assert torch.equal(states[0][index][name], states[1][index][name])


class TestUpdate:
    def test_equals_a_loop_written_by_hand(self) -> None:
        """Adam, clipping, warm-up and average, step by step from the same batches and noise."""
        settings = {"batch_size": 16, "learning_rate": 0.01, "warmup": 3, "ema_decay": 0.6}
        trainer = trainer_of(small_mlp, POINTS, gradient_clip=0.5, **settings)
        batches = [POINTS[trainer._indices(step)] for step in range(12)]
        model = copy.deepcopy(trainer.model)
        average = [p.detach().clone() for p in model.parameters()]
        train(trainer, 12)

        torch.manual_seed(0)
        losses = []
        optimizer = torch.optim.Adam(model.parameters())
        for n, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = 0.01 * min(1, (n + 1) / 4)
            loss = simple_loss(model, SCHEDULE, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            d = min(0.6, (1 + n) / (10 + n))
            average = [
                d * a + (1 - d) * p.detach()
                for a, p in zip(average, model.parameters(), strict=True)
            ]
            losses.append(loss.detach())
        torch.testing.assert_close(trainer.losses, torch.stack(losses), rtol=1e-5, atol=1e-6)
        for ours, truth in zip(trainer.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)
        for ours, truth in zip(trainer.ema.parameters(), average, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("batch_size", [1, 16, 35, 70, 100, 150])
    def test_every_epoch_sees_every_sample_once(self, batch_size) -> None:
        trainer = trainer_of(small_mlp, POINTS, batch_size=batch_size)
        steps = -(-3 * 70 // batch_size)
        seen = torch.cat([trainer._indices(step) for step in range(steps)])
        assert len(seen) == steps * batch_size
        epochs = seen[: 3 * 70].reshape(3, 70)
        for epoch in epochs:
            assert torch.equal(epoch.sort().values, torch.arange(70))
        assert not torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[0], torch.arange(70))

    def test_the_order_is_a_function_of_seed_and_epoch(self) -> None:
        orders = [
            trainer_of(small_mlp, POINTS, batch_size=70, seed=seed)._indices(epoch)
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

    def test_making_a_trainer_seeds_no_generator_in_use(self, monkeypatch) -> None:
        """torch.manual_seed would seed every device there is."""
        monkeypatch.setattr(torch, "manual_seed", None)
        before = torch.get_rng_state()
        state = Trainer(small_mlp(), SCHEDULE, before[None].float(), seed=7, device="cpu")._random
        monkeypatch.undo()
        torch.manual_seed(7)
        assert torch.equal(state["cpu"], torch.get_rng_state())

    def test_the_caller_keeps_their_random_numbers(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(4)
        trainer = trainer_of(Own, POINTS, batch_size=16)
        torch.manual_seed(3)
        train(trainer, 4)
        assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("make", "data", "batch_size"),
    [(small_mlp, POINTS, 35), (small_mlp, POINTS, 16), (small_unet, IMAGES, 4), (Own, POINTS, 16)],
)
class TestSameBits:
    def test_one_seed_one_run(self, make, data, batch_size) -> None:
        runs = [train(trainer_of(make, data, batch_size=batch_size), 12) for _ in range(2)]
        assert_same_run(*runs)
        other = train(trainer_of(make, data, batch_size=batch_size, seed=1), 12)
        assert not torch.equal(other.losses, runs[0].losses)

    def test_resume_goes_on_as_if_never_stopped(self, make, data, batch_size, tmp_path) -> None:
        """10 + save + resume + 10 equals 20, whatever else used random numbers in between."""
        straight = train(trainer_of(make, data, batch_size=batch_size), 20)
        first = train(trainer_of(make, data, batch_size=batch_size), 10)
        first.save(tmp_path / "run.safetensors")
        torch.manual_seed(99)
        model = Own() if make is Own else None
        resumed = Trainer.resume(tmp_path / "run.safetensors", data, model=model, device="cpu")
        assert_same_run(resumed, first)
        assert_same_run(train(resumed, 10), straight)
        assert_same_run(train(first, 10), straight)  # saving changed nothing


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

    def test_a_run_from_another_kind_of_device_goes_on(self, tmp_path) -> None:
        """Its noise is new there: a function of seed and step, so resuming twice is one run."""
        path = tmp_path / "run.safetensors"
        trainer = train(trainer_of(small_mlp, POINTS, batch_size=8), 5)
        trainer._random["cuda"] = torch.zeros(16, dtype=torch.uint8)
        trainer.save(path)
        runs = [train(Trainer.resume(path, POINTS, device="cpu"), 5) for _ in range(2)]
        assert_same_run(*runs)
        assert runs[0].step == 10

    def test_other_data_are_refused(self, tmp_path) -> None:
        path = tmp_path / "run.safetensors"
        train(trainer_of(small_mlp, POINTS), 1).save(path)
        with pytest.raises(ValueError, match=r"\(60, 2\).*trained on \(70, 2\)"):
            Trainer.resume(path, POINTS[:60])
        with pytest.raises(ValueError, match="not the values"):
            Trainer.resume(path, POINTS + 1)

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


class TestShippedDigits:
    def test_description(self) -> None:
        model, schedule, info = load_pretrained("digits", device="cpu")
        np.testing.assert_allclose(schedule.alpha_bar, NoiseSchedule.linear().alpha_bar, rtol=1e-14)
        assert info["command"] == "python -m diffusion_lib train --data digits --out runs/digits"
        assert info["settings"]["seed"] == 0
        assert info["step"] == 4000
        assert info["data_digest"] == training._digest(digits())
        assert sum(p.numel() for p in model.parameters()) < 500_000

    def test_samples_look_like_digits(self) -> None:
        """Their nearest real digits are about as near as those of unseen real digits are.

        For comparison, a Gaussian with the mean and covariance of the digits must not pass.
        """
        x, labels = digits().flatten(1).numpy(), digit_labels().numpy()
        nearest = KNeighborsClassifier(1).fit(x[::2], labels[::2])

        def distance(images: np.ndarray) -> np.ndarray:
            return nearest.kneighbors(images)[0][:, 0]

        usual = np.quantile(distance(x[1::2]), 0.95)
        rng = np.random.default_rng(0)
        gaussian = rng.multivariate_normal(x.mean(axis=0), np.cov(x.T), 128)
        assert (distance(gaussian) < usual).mean() < 0.3

        model, schedule, info = load_pretrained("digits", device="cpu")
        generator = torch.Generator().manual_seed(0)
        x_T = torch.randn(128, *info["data_shape"][1:], generator=generator)
        for sampler in (samplers.ddim, samplers.ddpm):
            drawn = sampler(model, schedule.strided(50), x_T, generator=generator)
            images = drawn.flatten(1).numpy()
            assert (distance(images) < usual).mean() > 0.8
            assert distance(images).min() > 0.5  # and none is a copy
            assert len(set(nearest.predict(images))) == 10


class TestFilesStayWhole:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "run.safetensors"
        train(trainer_of(small_mlp, POINTS, batch_size=8), 3).save(path)
        return path

    @pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
    def test_truncated(self, path, kept) -> None:
        path.write_bytes(path.read_bytes()[:kept])
        for read in (load_model, lambda path: Trainer.resume(path, POINTS)):
            with pytest.raises(ValueError, match=r"run\.safetensors is damaged"):
                read(path)

    def test_foreign(self, path) -> None:
        safetensors.torch.save_file({"a": torch.ones(2)}, path)
        with pytest.raises(ValueError, match="not a checkpoint of diffusion_lib"):
            load_model(path)
        torch.save({"a": torch.ones(2)}, path)
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            load_model(path)
        with pytest.raises(FileNotFoundError, match="does not exist"):
            load_model(path.with_name("none.safetensors"))

    @pytest.mark.parametrize(
        "change",
        [
            lambda info: info.pop("step"),
            lambda info: info.pop("settings"),
            lambda info: info.update(step="many"),
            lambda info: info.update(step=4),
            lambda info: info.update(settings="x"),
            lambda info: info["settings"].update(seed=1.5),
            lambda info: info["settings"].update(colour="red"),
            lambda info: info["settings"].pop("warmup"),
            lambda info: info["settings"].update(prediction=["eps"]),
            lambda info: info.update(data_shape=5),
            lambda info: info.update(data_shape=[70, "x"]),
            lambda info: info.update(network="mlp"),
            lambda info: info.update(network={"name": "vit"}),
            lambda info: info.update(network={"name": "mlp", "width": "wide"}),
            lambda info: info.update(network={"name": ["mlp"]}),
        ],
    )
    def test_a_description_that_was_changed(self, path, change) -> None:
        with safetensors.safe_open(path, "pt") as file:
            info = json.loads(file.metadata()["info"])
        change(info)
        self.rewrite(path, safetensors.torch.load_file(path), json.dumps(info))
        with pytest.raises(ValueError, match=r"run\.safetensors is damaged: ") as error:
            Trainer.resume(path, POINTS, device="cpu")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("info", ["", "{", "[]", "null", "[" * 5000])
    def test_a_description_that_is_none(self, path, info) -> None:
        self.rewrite(path, safetensors.torch.load_file(path), info)
        with pytest.raises(ValueError, match=r"run\.safetensors is damaged: "):
            load_model(path)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("schedule.alpha_bar", None),
            ("schedule.alpha_bar", torch.ones(3)),
            ("schedule.times", torch.ones(3)),
            ("random.cpu", torch.ones(3)),
            ("optimizer.0.exp_avg", torch.ones(3)),
            ("optimizer.0.step", None),
            ("losses", torch.ones(7)),
        ],
    )
    def test_tensors_that_were_changed(self, path, name, value) -> None:
        with safetensors.safe_open(path, "pt") as file:
            info = file.metadata()["info"]
        tensors = safetensors.torch.load_file(path)
        tensors[name] = value
        self.rewrite(path, {k: v for k, v in tensors.items() if v is not None}, info)
        with pytest.raises(ValueError, match=r"run\.safetensors is damaged: "):
            Trainer.resume(path, POINTS, device="cpu")

    def rewrite(self, path, tensors, info: str) -> None:
        metadata = {"format": training.FORMAT, "info": info}
        safetensors.torch.save_file(tensors, path, metadata)

    @pytest.mark.parametrize(
        ("notes", "match"),
        [
            ({"step": 3}, "step is not a name for a note"),
            ({"settings": "x"}, "settings is not a name for a note"),
            ({"x": torch.ones(1)}, "was not written: notes must be plain values; .*Tensor"),
        ],
    )
    def test_notes_that_are_refused(self, path, notes, match) -> None:
        before = path.read_bytes()
        trainer = trainer_of(small_mlp, POINTS)
        for write in (trainer.save, trainer.export):
            with pytest.raises(ValueError, match=match):
                write(path, **notes)
        assert path.read_bytes() == before

    def test_an_interrupted_write_leaves_nothing_behind(self, path, monkeypatch) -> None:
        def interrupt(*_) -> None:
            raise KeyboardInterrupt

        before = path.read_bytes()
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer_of(small_mlp, POINTS).save(path)
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_a_folder_that_is_a_file(self, path) -> None:
        below = path / "run.safetensors"
        with pytest.raises(OSError, match=re.escape(f"{below} was not written: ")):
            trainer_of(small_mlp, POINTS).save(below)

    @pytest.mark.parametrize("failing", ["fsync", "replace"])
    def test_a_write_that_fails_leaves_the_old_checkpoint(self, path, failing, monkeypatch) -> None:
        before = path.read_bytes()

        def fail(*_) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="was not written: No space left on device"):
            trainer_of(small_mlp, POINTS).save(path)
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_spoiled_weights_are_not_saved(self, path) -> None:
        before = path.read_bytes()
        data = POINTS.clone()
        trainer = trainer_of(small_mlp, data, batch_size=8)
        train(trainer, 60)
        trainer.data[:] = float("nan")
        with pytest.raises(FloatingPointError, match=r"loss became nan at step 61.*learning_rate"):
            train(trainer, 60)
        assert trainer.step == len(trainer.losses) == 60
        with pytest.raises(FloatingPointError, match=r"was not written.*not finite"):
            trainer.save(path)
        assert path.read_bytes() == before

    def test_metadata_is_plain_json(self, path) -> None:
        header = path.read_bytes()
        size = int.from_bytes(header[:8], "little")
        metadata = json.loads(header[8 : 8 + size])["__metadata__"]
        assert json.loads(metadata["info"])["network"] == small_mlp().config


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"batch_size": 0}, "batch_size is 0"),
            ({"learning_rate": -1.0}, "learning_rate is -1"),
            ({"learning_rate": float("nan")}, "learning_rate is nan"),
            ({"warmup": -1}, "warmup is -1"),
            ({"ema_decay": 1.0}, r"ema_decay is 1\.0.*\[0, 1\)"),
            ({"gradient_clip": 0.0}, "gradient_clip is 0"),
            ({"prediction": "noise"}, "prediction is 'noise'"),
            ({"seed": -1}, "seed is -1"),
            ({"seed": 2**63}, "seed is 9223372036854775808.*below"),
            ({"seed": 1.5}, r"seed is 1\.5"),
            ({"batch_size": 2.5}, r"batch_size is 2\.5"),
            ({"warmup": 1.5}, r"warmup is 1\.5"),
            ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
            ({"ema_decay": None}, "ema_decay is None"),
            ({"gradient_clip": "1"}, "gradient_clip is '1'"),
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
        ],
    )
    def test_data(self, data, match) -> None:
        with pytest.raises(ValueError, match=match):
            Trainer(small_mlp(), SCHEDULE, data)

    @pytest.mark.parametrize("steps", [0, 2.5, "3", True])
    def test_steps(self, steps) -> None:
        with pytest.raises(ValueError, match=f"steps is {steps!r}; it must be a positive integer"):
            trainer_of(small_mlp, POINTS).train(steps)

    def test_model_and_schedule(self) -> None:
        with pytest.raises(ValueError, match="model is function; it must be a Module"):
            Trainer(lambda x_t, t: x_t, SCHEDULE, POINTS)
        with pytest.raises(ValueError, match="schedule is str; it must be a NoiseSchedule"):
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
        monkeypatch.setattr(training, "_seeded_random_state", lambda seed, device: {})
        trainer = Trainer(small_mlp(), SCHEDULE, POINTS, device=kind)
        assert trainer.optimizer.defaults["fused"] is fused

    def test_digest_of_very_many_samples(self) -> None:
        """float32 cannot count to 2^24 + 3: its last row would lie outside."""
        training._digest(torch.zeros(1, 1).expand(2**24 + 4, 1))

    def test_absent_device(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match=r"device is 'cuda'; this machine has cpu"):
            resolve_device("cuda")

    def test_unknown_pretrained(self) -> None:
        with pytest.raises(ValueError, match=r"'cats'.*digits"):
            load_pretrained("cats")


class TestNoWaiting:
    def test_losses_are_read_in_blocks(self, monkeypatch) -> None:
        """No step reads a value back from the device: that would stall a GPU once per step."""
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
