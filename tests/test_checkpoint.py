"""Checkpoints: files that stay whole, and that can execute nothing."""

import builtins
import errno
import json
import os
import pickle
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.neighbors import KNeighborsClassifier

from diffusion_lib import checkpoint, samplers, training
from diffusion_lib.checkpoint import load_model, load_pretrained
from diffusion_lib.data import digit_labels, digits, moons
from diffusion_lib.networks import MLP
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

POINTS = moons(70, seed=0)


def trained(steps: int = 3) -> Trainer:
    torch.manual_seed(5)
    model = MLP(dim=2, width=16, depth=1)
    trainer = Trainer(model, NoiseSchedule.linear(), POINTS, batch_size=8, device="cpu")
    trainer.train(steps, progress=False)
    return trainer


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.safetensors"
    trained().save(path)
    return path


def description(path) -> dict:
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()["info"])


def replace(path, tensors, info: str, form: str = checkpoint.FORMAT) -> None:
    safetensors.torch.save_file(tensors, path, {"format": form, "info": info})


def rewrite(path, **changes) -> dict:
    """Change what a checkpoint says of itself, and return it."""
    info = description(path) | changes
    replace(path, safetensors.torch.load_file(path), json.dumps(info))
    return info


class TestShippedDigits:
    def test_description(self) -> None:
        model, schedule, info = load_pretrained("digits", device="cpu")
        np.testing.assert_allclose(schedule.alpha_bar, NoiseSchedule.linear().alpha_bar, rtol=1e-14)
        train = "python -m diffusion_lib train"
        assert info["command"] == f"{train} --data digits --out runs/digits --device cpu"
        assert info["settings"]["seed"] == 0
        assert info["step"] == 4000
        assert info["data_digest"] == training._digest(digits())
        assert sum(p.numel() for p in model.parameters()) < 500_000

    def test_the_weights_are_those_in_the_file(self) -> None:
        file = checkpoint.CHECKPOINTS / "digits.safetensors"
        stored = safetensors.torch.load_file(file)
        model, schedule, _ = load_pretrained("digits", device="cpu")
        weights = model.state_dict()
        assert {f"ema.{name}" for name in weights} == {n for n in stored if n.startswith("ema.")}
        for name, weight in weights.items():
            assert torch.equal(weight, stored[f"ema.{name}"])
        assert np.array_equal(schedule.alpha_bar, stored["schedule.alpha_bar"].numpy())

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
            lambda info: info["settings"].update(objective=["simple"]),
            lambda info: info["settings"].update(precision="fp64"),
            lambda info: info.pop("labels_digest"),
            lambda info: info.update(data_shape=5),
            lambda info: info.update(data_shape=[70, "x"]),
            lambda info: info.update(network="mlp"),
            lambda info: info.update(network={"name": "vit"}),
            lambda info: info.update(network={"name": "mlp", "width": "wide"}),
            lambda info: info.update(network={"name": ["mlp"]}),
        ],
    )
    def test_a_description_that_was_changed(self, path, change) -> None:
        info = description(path)
        change(info)
        replace(path, safetensors.torch.load_file(path), json.dumps(info))
        with pytest.raises(ValueError, match=r"run\.safetensors is damaged: ") as error:
            Trainer.resume(path, POINTS, device="cpu")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("info", ["", "{", "[]", "null", "[" * 5000])
    def test_a_description_that_is_none(self, path, info) -> None:
        replace(path, safetensors.torch.load_file(path), info)
        with pytest.raises(ValueError, match=r"run\.safetensors is damaged: "):
            load_model(path)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("schedule.alpha_bar", None),
            ("schedule.alpha_bar", torch.ones(3)),
            ("schedule.times", torch.ones(3)),
            ("scaler.scale", torch.ones(())),
            ("gradient_norms", torch.ones(7)),
            ("optimizer.0.exp_avg", torch.ones(3)),
            ("optimizer.0.step", None),
            ("losses", torch.ones(7)),
        ],
    )
    def test_tensors_that_were_changed(self, path, name, value) -> None:
        tensors = safetensors.torch.load_file(path) | {name: value}
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        replace(path, kept, json.dumps(description(path)))
        with pytest.raises(ValueError, match=r"run\.safetensors is damaged: "):
            Trainer.resume(path, POINTS, device="cpu")

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
        trainer = trained()
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
            trained().save(path)
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_metadata_is_plain_json(self, path) -> None:
        header = path.read_bytes()
        size = int.from_bytes(header[:8], "little")
        metadata = json.loads(header[8 : 8 + size])["__metadata__"]
        assert json.loads(metadata["info"])["network"] == trained().model.config


class TestAFileThatCannotBeWritten:
    """One sentence with path and reason; the checkpoint from before is untouched."""

    def fails(self, path, reason: str) -> None:
        before = path.read_bytes()
        sentence = f"{path} was not written: {reason}; the one from before is still there."
        with pytest.raises(OSError, match=re.escape(sentence)):
            trained(4).save(path)
        assert path.read_bytes() == before
        assert load_model(path)[2]["step"] == 3
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize("failing", ["fsync", "replace"])
    def test_at_the_end(self, path, failing, monkeypatch) -> None:
        def fail(*_) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, failing, fail)
        self.fails(path, "No space left on device")

    def test_a_disk_that_is_full_in_the_middle(self, path, monkeypatch) -> None:
        """The limit on the size of files stops a write where a full disk would."""
        resource = pytest.importorskip("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        trained().save(path.with_name("other"))  # whatever torch writes at first use is written
        path.with_name("other").unlink()
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
        try:
            self.fails(path, "File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        trained(4).save(path)
        assert load_model(path)[2]["step"] == 4

    def test_a_folder_that_is_read_only(self, path, monkeypatch) -> None:
        """Refused by hand, because nothing is read-only to the superuser."""

        def refuse(name, mode="r", *arguments, **options):
            if "w" in mode:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
            return builtins.open(name, mode, *arguments, **options)

        monkeypatch.setattr(checkpoint, "open", refuse, raising=False)
        self.fails(path, "Permission denied")

    def test_a_folder_that_is_a_file(self, path) -> None:
        below = path / "run.safetensors"
        with pytest.raises(OSError, match=re.escape(f"{below} was not written: ")):
            trained().save(below)


class TestHostileFiles:
    """They are refused in a sentence, and nothing in them is run or built."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, ("exploded",)

    @pytest.mark.parametrize(
        "write",
        [
            lambda bomb, path: path.write_bytes(pickle.dumps(bomb)),
            lambda bomb, path: torch.save({"model": bomb}, path),
            lambda bomb, path: path.write_bytes(
                (len(header := pickle.dumps(bomb))).to_bytes(8, "little") + header
            ),
        ],
        ids=["pickle", "torch.save", "pickled header"],
    )
    def test_a_pickle(self, write, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "model.safetensors"
        write(self.Bomb(), path)
        for read in (load_model, lambda path: Trainer.resume(path, POINTS)):
            with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a check"):
                read(path)
        assert not (tmp_path / "exploded").exists()

    def test_a_pickle_beside_the_description(self, path) -> None:
        """As text in the metadata it stays text."""
        bomb = pickle.dumps(self.Bomb(), protocol=0).decode()
        info = rewrite(path, network=bomb)
        assert info["network"] == bomb
        with pytest.raises(ValueError, match="is damaged: its network is"):
            load_model(path)
        assert not os.path.exists("exploded")

    @pytest.mark.parametrize("name", ["os.system", "../mlp", "__class__", "Network"])
    def test_a_network_that_is_none_of_ours(self, path, name) -> None:
        rewrite(path, network={"name": name})
        with pytest.raises(ValueError, match=r"is damaged: network is .* must be one of"):
            load_model(path)

    @pytest.mark.parametrize(
        ("option", "match"),
        [
            ({"width": 32}, "do not fit"),
            ({"width": 200_000_000}, "width is 200000000, but there are"),
            ({"depth": 10**12}, "depth is 1000000000000, but there are"),
            ({"depth": 300}, r"depth is 300, but there are \d+ layers"),
            ({"multipliers": [1] * 300}, r"multipliers is \[1, .*, but there are \d+ layers"),
        ],
        ids=["wrong", "would fill the memory", "would never be built", "long", "a long list"],
    )
    def test_a_network_that_the_weights_are_not_of(self, path, option, match) -> None:
        """It is compared with the weights in the file before any is made."""
        rewrite(path, network={**trained().model.config, **option})
        with pytest.raises(ValueError, match=f"is damaged: .*{match}"):
            load_model(path)

    def test_a_header_longer_than_the_file(self, path) -> None:
        content = path.read_bytes()
        path.write_bytes((2**62).to_bytes(8, "little") + content[8:])
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            load_model(path)


class TestFormats:
    def test_a_run_of_the_format_before_can_be_sampled_from_but_not_resumed(self, path) -> None:
        replace(
            path,
            safetensors.torch.load_file(path),
            json.dumps(description(path)),
            "diffusion_lib 1",
        )
        assert load_model(path)[2]["step"] == 3
        with pytest.raises(ValueError, match="earlier version .* cannot be resumed"):
            Trainer.resume(path, POINTS)

    def test_a_format_to_come_is_refused(self, path) -> None:
        replace(
            path,
            safetensors.torch.load_file(path),
            json.dumps(description(path)),
            "diffusion_lib 3",
        )
        with pytest.raises(ValueError, match="not a checkpoint of diffusion_lib"):
            load_model(path)


class TestPretrained:
    def test_unknown_pretrained(self) -> None:
        with pytest.raises(ValueError, match=r"'cats'.*digits"):
            load_pretrained("cats")
