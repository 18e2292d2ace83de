"""The command line: train, stop, resume, sample, and one sentence when something is wrong."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from diffusion_lib import data, pictures, samplers
from diffusion_lib.__main__ import RECIPE, SCHEDULES, _parser, main
from diffusion_lib.checkpoint import load_model, load_pretrained
from diffusion_lib.networks import default_network
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A folder with 60 steps on the moons."""
    out = tmp_path_factory.mktemp("runs") / "moons"
    assert run("train", "--data", "moons", "--out", out, "--steps", 60, "--device", "cpu") == 0
    return out


@pytest.fixture(scope="module")
def labelled_points(tmp_path_factory):
    """A folder with 60 steps on the moons, each told which of the two it is on."""
    out = tmp_path_factory.mktemp("runs") / "labelled"
    common = ["train", "--data", "moons", "--conditional", "--label-dropout", 0.3]
    assert run(*common, "--out", out, "--steps", 60, "--device", "cpu") == 0
    return out


class TestTrain:
    def test_writes_what_it_says(self, points) -> None:
        files = {file.name for file in points.iterdir()}
        pictures = {"samples.png", "losses.png"}
        assert files == {"checkpoint.safetensors", "model.safetensors", "log.csv", *pictures}
        info = load_model(points / "model.safetensors")[2]
        assert info["step"] == 60
        assert info["data"] == "moons"
        assert info["command"].startswith("python -m diffusion_lib train --data moons")
        for name in ("samples.png", "losses.png"):
            with Image.open(points / name) as picture:
                assert picture.size == (720, 480)

    def test_resume_equals_never_stopping(self, points, tmp_path) -> None:
        common = ["train", "--data", "moons", "--out", tmp_path, "--device", "cpu"]
        assert run(*common, "--steps", 25) == 0
        assert run(*common, "--steps", 60, "--resume") == 0
        one, other = (
            safetensors.torch.load_file(folder / "checkpoint.safetensors")
            for folder in (points, tmp_path)
        )
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name
        assert (points / "log.csv").read_bytes() == (tmp_path / "log.csv").read_bytes()

    def test_the_log_has_a_line_for_every_step(self, points) -> None:
        lines = (points / "log.csv").read_text().splitlines()
        assert lines[0] == "step,loss,learning_rate,gradient_norm"
        table = np.loadtxt(lines[1:], delimiter=",")
        losses = safetensors.torch.load_file(points / "checkpoint.safetensors")["losses"]
        assert np.array_equal(table[:, 0], np.arange(1, 61))
        assert np.array_equal(table[:, 1].astype(np.float32), losses.numpy())
        assert (np.diff(table[:, 2]) > 0).all()
        assert (table[:, 3] > 0).all()

    def test_a_resumed_log_has_no_line_twice(self, points, tmp_path) -> None:
        """A run that was killed has logged steps that its last checkpoint does not know."""
        common = ["train", "--data", "moons", "--out", tmp_path, "--device", "cpu"]
        assert run(*common, "--steps", 25) == 0
        with open(tmp_path / "log.csv", "a") as file:
            file.write("26,9,9,9\n27,9,")
        assert run(*common, "--steps", 60, "--resume") == 0
        assert (points / "log.csv").read_bytes() == (tmp_path / "log.csv").read_bytes()

    def test_pictures_while_training_change_nothing(self, points, tmp_path) -> None:
        common = ["train", "--data", "moons", "--out", tmp_path, "--device", "cpu"]
        assert run(*common, "--steps", 60, "--sample-every", 50) == 0
        for name in ("log.csv", "samples.png"):
            assert (points / name).read_bytes() == (tmp_path / name).read_bytes()
        (picture,) = tmp_path.glob("samples-*")
        assert picture.name == "samples-0000050.png"
        # It shows the averaged model of that step, from the same noise as in the end.
        short = tmp_path / "short"
        assert (
            run("train", "--data", "moons", "--out", short, "--device", "cpu", "--steps", 50) == 0
        )
        assert (short / "samples.png").read_bytes() == picture.read_bytes()

    def test_options_reach_the_run(self, tmp_path) -> None:
        arguments = ["--data", "digits", "--out", tmp_path, "--device", "cpu", "--steps", 2]
        recipe = {
            "objective": "hybrid",
            "prediction": "v",
            "label_dropout": 0.25,
            "batch_size": 6,
            "accumulate": 2,
            "precision": "bf16",
            "learning_rate": 0.01,
            "ema_decay": 0.9,
            "gradient_clip": 0.5,
            "seed": 3,
        }
        for name, value in recipe.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        arguments += ["--schedule", "sigmoid", "--zero-terminal", "--network", "dit"]
        assert run("train", *arguments, "--conditional") == 0
        model, schedule, info = load_model(tmp_path / "model.safetensors", device="cpu")
        assert info["settings"].items() >= recipe.items()
        assert set(recipe) | {"schedule", "zero_terminal", "network"} == set(RECIPE)
        assert schedule == NoiseSchedule.sigmoid().zero_terminal()
        assert model.config["name"] == "dit"
        assert model.config["classes"] == 10
        assert model.config["learned_variance"] is True
        before = (tmp_path / "checkpoint.safetensors").read_bytes()
        resume = ["train", *arguments[:6], "--steps", 3, "--resume"]
        for other, message in [
            (["--conditional", "--network", "unet"], "--network is unet"),
            (["--conditional", "--schedule", "linear"], "--schedule is linear"),
            (["--conditional", "--precision", "fp32"], "--precision is fp32"),
            (["--conditional", "--objective", "simple"], "--objective is simple"),
            ([], "was trained with labels, and none are given"),
            (["--data", "moons"], "data has shape (10000, 2)"),
        ]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "stderr", text := io.StringIO())
                assert run(*resume, *other) == 2
            assert message in text.getvalue()
        assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
        assert run(*resume, "--conditional", *arguments[-5:]) == 0

    def test_compile(self, points, tmp_path, monkeypatch) -> None:
        """The network is compiled, not its average, and what is saved is as ever."""
        compiled = []

        def compile_eagerly(model, *_) -> None:
            compiled.append(model)
            model._compiled_call_impl = torch.compile(model._call_impl, backend="eager")

        monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
        common = ["train", "--data", "moons", "--out", tmp_path, "--device", "cpu", "--compile"]
        assert run(*common, "--steps", 60) == 0
        assert len(compiled) == 1
        one, other = (
            safetensors.torch.load_file(folder / "checkpoint.safetensors")
            for folder in (points, tmp_path)
        )
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)

    def test_a_finished_run_is_not_overwritten(self, points, capsys) -> None:
        before = (points / "checkpoint.safetensors").read_bytes()
        assert run("train", "--data", "moons", "--out", points) == 2
        assert "add --resume" in capsys.readouterr().err
        assert run("train", "--data", "moons", "--out", points, "--steps", 60, "--resume") == 2
        assert "already done 60" in capsys.readouterr().err
        resume = ["train", "--data", "moons", "--out", points, "--steps", 70, "--resume"]
        assert run(*resume, "--batch-size", 7) == 2
        assert "--batch-size is 7" in capsys.readouterr().err
        assert run(*resume, "--schedule", "cosine") == 2
        assert "--schedule is cosine" in capsys.readouterr().err
        assert (points / "checkpoint.safetensors").read_bytes() == before

    def test_a_users_own_array_and_pictures(self, tmp_path) -> None:
        rng = np.random.default_rng(0)
        np.save(tmp_path / "x.npy", rng.normal(size=(50, 5)))
        arguments = ["--steps", 2, "--device", "cpu", "--batch-size", 4]
        assert run("train", "--data", tmp_path / "x.npy", "--out", tmp_path / "a", *arguments) == 0
        assert np.load(tmp_path / "a" / "samples.npy").shape == (2000, 5)
        # What train draws in the end is what sample draws, from the averaged weights.
        sample = ["sample", "--checkpoint", tmp_path / "a", "--steps", 50, "--count", 2000]
        assert run(*sample, "--out", tmp_path / "b.npy", "--device", "cpu") == 0
        assert np.array_equal(np.load(tmp_path / "b.npy"), np.load(tmp_path / "a" / "samples.npy"))
        (tmp_path / "photos").mkdir()
        for i in range(3):
            picture = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / f"{i}.png")
        photos = ["--data", tmp_path / "photos", "--size", 8, "--out", tmp_path / "b"]
        assert run("train", *photos, *arguments) == 0
        assert load_model(tmp_path / "b" / "model.safetensors")[2]["data_shape"] == [3, 3, 8, 8]

    def test_pictures_of_four_channels(self, tmp_path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((5, 4, 8, 8), np.float32))
        arguments = ["--data", tmp_path / "x.npy", "--out", tmp_path, "--steps", 1]
        assert run("train", *arguments, "--batch-size", 2, "--device", "cpu") == 0
        assert np.load(tmp_path / "samples.npy").shape == (64, 4, 8, 8)

    def test_names_go_before_folders(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        common = ["--steps", 1, "--device", "cpu"]
        assert run("train", "--data", "moons", "--out", "digits", *common) == 0
        assert run("train", "--data", "digits", "--out", "b", "--batch-size", 2, *common) == 0
        common += ["--count", 2, "--out", "x.npy"]
        for source, shape in [("digits", (2, 1, 8, 8)), ("./digits", (2, 2))]:
            assert run("sample", "--checkpoint", source, *common) == 0
            assert np.load("x.npy").shape == shape

    def test_what_explodes_unclipped_is_clipped_and_said(self, tmp_path, capsys) -> None:
        """The cosine schedule multiplies errors of the predicted noise by 20 000 at its end."""
        common = ["--data", "checkerboard", "--schedule", "cosine", "--device", "cpu"]
        out = tmp_path / "eps"
        assert run("train", *common, "--steps", 60, "--out", out) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
        assert len(said) == 1
        assert "--clip -1.7" in said[0]
        assert "--prediction v" in said[0]
        drawn = {}
        for clip in ([], ["--clip", "-1.8", "1.8"]):
            sample = ["sample", "--checkpoint", out, "--steps", 50, "--out", tmp_path / "x.npy"]
            assert run(*sample, *clip, "--device", "cpu") == 0
            drawn[len(clip)] = np.abs(np.load(tmp_path / "x.npy")).max()
        assert drawn[0] > 10 > 1.8 >= drawn[3]
        capsys.readouterr()
        common += ["--steps", 1, "--out", tmp_path / "v", "--prediction", "v"]
        assert run("train", *common) == 0
        assert "note" not in capsys.readouterr().err

    def test_the_defaults_are_the_recipe_of_the_shipped_digits(self) -> None:
        options = _parser().parse_args(["train"])
        _, schedule, info = load_pretrained("digits")
        assert options.data == info["data"]
        assert options.steps == info["step"]
        recipe = dict(RECIPE)
        assert not recipe.pop("zero_terminal")
        recipe = {name: recipe[name] for name in ("schedule", *info["settings"].keys() & recipe)}
        assert np.allclose(SCHEDULES[recipe.pop("schedule")]().alpha_bar, schedule.alpha_bar)
        assert info["settings"].items() >= recipe.items()
        assert default_network((1, 8, 8)).config.items() >= info["network"].items()


class TestSample:
    @pytest.mark.parametrize(
        ("choice", "sampler", "options"),
        [
            (["--sampler", "ddim", "--eta", 0.5], samplers.ddim, {"eta": 0.5}),
            (["--sampler", "ddpm", "--variance", "beta"], samplers.ddpm, {"variance": "beta"}),
            (["--sampler", "heun"], samplers.heun, {}),
            (["--sampler", "dpm_solver"], samplers.dpm_solver, {}),
        ],
    )
    def test_is_the_library_call_it_says(self, points, tmp_path, choice, sampler, options) -> None:
        out = tmp_path / "x.npy"
        common = ["sample", "--checkpoint", points, "--steps", 5, "--count", 7, "--seed", 3]
        assert run(*common, "--out", out, "--device", "cpu", *choice) == 0
        model, schedule, _ = load_model(points / "model.safetensors", device="cpu")
        generator = torch.Generator().manual_seed(3)
        x_T = torch.randn(7, 2, generator=generator)
        if options:  # the others draw nothing
            options = options | {"generator": generator}
        truth = sampler(model, schedule.strided(5), x_T, **options)
        assert np.array_equal(np.load(out), truth.numpy())

    @pytest.mark.parametrize(
        ("choice", "labels", "scale"),
        [
            ([], [0, 1, 0, 1, 0], 1.0),
            (["--label", 1], [1, 1, 1, 1, 1], 1.0),
            (["--label", 1, "--guidance", 2.5], [1, 1, 1, 1, 1], 2.5),
        ],
    )
    def test_a_class_can_be_asked_for(self, labelled_points, tmp_path, choice, labels, scale):
        out = tmp_path / "x.npy"
        common = ["sample", "--checkpoint", labelled_points, "--steps", 5, "--count", 5]
        assert run(*common, "--out", out, "--device", "cpu", *choice) == 0
        model, schedule, _ = load_model(labelled_points / "model.safetensors", device="cpu")
        x_T = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
        told = samplers.guided(model, torch.tensor(labels), scale)
        truth = samplers.ddim(told, schedule.strided(5), x_T)
        assert np.array_equal(np.load(out), truth.numpy())

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            (["--label", 2], "--label is 2; it must be one of 0..1"),
            (["--label", -1], "--label is -1"),
            (["--guidance", -1], "scale is -1"),
        ],
    )
    def test_a_class_that_is_not_there(self, labelled_points, tmp_path, choice, message, capsys):
        common = ["sample", "--checkpoint", labelled_points, "--steps", 5, "--device", "cpu"]
        assert run(*common, "--out", tmp_path / "x.npy", *choice) == 2
        assert message in capsys.readouterr().err

    def test_shipped_digits_as_a_picture_grid(self, tmp_path) -> None:
        out = tmp_path / "deep" / "grid.png"
        common = ["sample", "--steps", 2, "--count", 10, "--device", "cpu"]
        assert run(*common, "--out", out) == 0
        assert run(*common, "--out", tmp_path / "x.npy") == 0
        grid = pictures.image_grid(torch.from_numpy(np.load(tmp_path / "x.npy")))
        assert grid.shape == (3 * 9 - 1, 4 * 9 - 1)
        with Image.open(out) as picture:
            assert np.array_equal(np.asarray(picture)[::6, ::6], grid)


class TestHelp:
    @pytest.mark.parametrize("command", ["train", "sample"])
    def test_every_option_says_its_default_once(self, command, capsys) -> None:
        with pytest.raises(SystemExit):
            run(command, "--help")
        text = " ".join(capsys.readouterr().out.split())
        assert "None" not in text
        assert "False" not in text
        assert not re.search(r"\(default: [^)]*\) \(default", text)
        assert re.search(r"--seed SEED seed of .+? \(default: 0\)", text)

    def test_the_examples_are_commands(self, capsys) -> None:
        with pytest.raises(SystemExit):
            run("--help")
        examples = re.findall(r"^  python -m diffusion_lib (.+)$", capsys.readouterr().out, re.M)
        assert len(examples) == 2
        for example in examples:
            assert _parser().parse_args(example.split())


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["train", "--data", "nothing"], "data is 'nothing'"),
            (["train", "--device", "warp"], "device is 'warp'"),
            (["train", "--batch-size", "0"], "--batch-size is 0"),
            (["train", "--learning-rate", "0"], "learning_rate is 0"),
            (["train", "--steps", "0"], "--steps is 0; it must be a positive integer"),
            (["train", "--save-every", "-1"], "--save-every is -1"),
            (["train", "--size", "-3"], "--size is -3"),
            (["train", "--seed", str(2**64)], "--seed is 18446744073709551616"),
            (["train", "--seed", "-1"], "--seed is -1"),
            (["train", "--sample-every", "0"], "--sample-every is 0"),
            (["train", "--accumulate", "0"], "--accumulate is 0"),
            (["train", "--accumulate", "65"], "batch_size is 64; it must be at least 65"),
            (["train", "--network", "mlp"], "--network is mlp; it must be unet or dit for"),
            (["train", "--data", "moons", "--network", "dit"], "--network is dit; it must be mlp"),
            (["train", "--data", "spiral", "--conditional"], "spiral has none"),
            (["train", "--zero-terminal"], "pure noise"),
            (["train", "--label-dropout", "2"], "label_dropout is 2"),
            (["sample", "--label", "3"], "--label needs a model trained with --conditional"),
            (["sample", "--guidance", "3"], "--guidance needs a model trained with --conditional"),
            (["sample", "--sampler", "heun", "--eta", "0"], "--eta is only for --sampler ddim"),
            (["train", "--out", "file"], "--out is file, which is a file"),
            (["train", "--resume"], "checkpoint.safetensors does not exist"),
            (["sample", "--checkpoint", "none.safetensors"], "--checkpoint is 'none.safetensors'"),
            (
                ["sample", "--checkpoint", "cats"],
                "'cats'; it must be digits, digits-labelled, or an existing",
            ),
            (["sample", "--checkpoint", "missing/path"], "--checkpoint is 'missing/path'"),
            (["sample", "--checkpoint", "folder"], "model.safetensors does not exist"),
            (["sample", "--checkpoint", "./digits"], "--checkpoint is './digits'"),
            (["sample", "--checkpoint", "file"], "file is damaged or not a checkpoint"),
            (["sample", "--sampler", "ddpm", "--eta", ".5"], "--eta is only for --sampler ddim"),
            (["sample", "--variance", "beta"], "--variance is only for --sampler ddpm"),
            (["sample", "--steps", "0"], "--steps is 0"),
            (["sample", "--seed", "-1"], "--seed is -1"),
            (["sample", "--device", "cuda:99"], "device is 'cuda:99'"),
            (["sample", "--steps", "2000"], "2000"),
            (["sample", "--eta", "5", "--steps", "2"], "eta is 5"),
            (["sample", "--count", "0"], "--count is 0"),
            (["sample", "--count", str(10**30)], "--count is 1000"),
            (["sample", "--out", "x.doc"], "x.doc does not end in .npy or the suffix"),
            (["sample", "--out", "folder"], "folder is a folder"),
            (["sample", "--out", "file/x.png"], "file/x.png cannot be written: "),
        ],
    )
    def test_one_sentence_and_code_2(
        self, arguments, message, tmp_path, monkeypatch, capsys
    ) -> None:
        """Before anything is trained or drawn."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Trainer, "train", None)
        monkeypatch.setattr(samplers, "evaluating", None)
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        assert main(arguments) == 2
        lines = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")
        ]
        assert len(lines) == 1
        assert message in lines[0]
        assert "Traceback" not in lines[0]

    def test_another_fault_with_memory_is_not_that(self, tmp_path, monkeypatch) -> None:
        def reach_beyond(*_, **__) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(samplers, "ddim", reach_beyond)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            run("sample", "--out", tmp_path / "x.png")

    @pytest.mark.parametrize("name", ["ddim", "ddpm"])
    def test_too_little_memory(self, name, tmp_path, monkeypatch, capsys) -> None:
        def allocate(*_, **__) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 10 PB.")

        monkeypatch.setattr(samplers, name, allocate)
        assert run("sample", "--sampler", name, "--out", tmp_path / "x.png") == 2
        assert capsys.readouterr().err == (
            "error: there is too little memory to sample like this; try a smaller --count.\n"
        )

    def test_points_of_three_coordinates_have_no_picture(self, tmp_path, capsys) -> None:
        model = default_network((3,))
        trainer = Trainer(model, NoiseSchedule.linear(), torch.ones(4, 3), device="cpu")
        trainer.export(tmp_path / "model.safetensors")
        assert run("sample", "--checkpoint", tmp_path, "--out", tmp_path / "x.png") == 2
        assert "write them to a .npy file" in capsys.readouterr().err
        assert not (tmp_path / "x.png").exists()

    def test_control_c_says_what_remains(self, tmp_path, monkeypatch, capsys) -> None:
        def press(*_, **__) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(samplers, "ddim", press)
        assert run("sample", "--out", tmp_path / "x.png") == 130
        assert capsys.readouterr().err == "stopped; no samples were written.\n"
        monkeypatch.setattr(Trainer, "train", press)
        assert run("train", "--out", tmp_path / "run") == 130
        assert "stopped; train --resume goes on" in capsys.readouterr().err

    def test_control_c_during_imports(self) -> None:
        program = """
import runpy, sys
class Press:
    def find_spec(name, *_):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Press)
runpy.run_module("diffusion_lib", run_name="__main__")
"""
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 130
        assert done.stderr == ""

    def test_as_a_program(self) -> None:
        command = [sys.executable, "-m", "diffusion_lib", "train", "--data", "nothing"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: data is 'nothing'")
        assert done.stderr.count("\n") == 1


class TestPictures:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_grid_holds_each_image_in_its_place(self, channels) -> None:
        images = np.random.default_rng(0).integers(0, 256, (5, channels, 4, 6)).astype(np.uint8)
        grid = pictures.image_grid(data.from_bytes(images), columns=3)
        assert grid.shape[:2] == (9, 20)
        for i in range(5):
            top, left = 5 * (i // 3), 7 * (i % 3)
            cell = grid[top : top + 4, left : left + 6].reshape(4, 6, channels)
            assert np.array_equal(cell, images[i].transpose(1, 2, 0))

    def test_what_has_no_picture(self, tmp_path) -> None:
        with pytest.raises(ValueError, match=r"shape \(3,\).*\.npy"):
            pictures.save_samples(tmp_path / "x.png", torch.zeros(4, 3))
        with pytest.raises(ValueError, match="grid needs"):
            pictures.image_grid(torch.zeros(4, 2, 8, 8))
