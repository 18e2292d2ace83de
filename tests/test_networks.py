"""Networks: the embedding against 50 digits, attention and the transformer one patch at a time,
labels and times that are really seen, gradients that reach everything, shapes and errors."""

import json
import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import diffusion_lib
from diffusion_lib import samplers
from diffusion_lib.networks import MLP, NETWORKS, DiT, UNet, build, default_network, time_embedding
from diffusion_lib.networks.time_embedding import distinct_times
from diffusion_lib.networks.unet import ResidualBlock, SelfAttention
from diffusion_lib.schedule import NoiseSchedule


def embedding_50_digits(t: int, dim: int, max_period: float) -> list[float]:
    """Claim N1, written anew with 50 digits."""
    with mpmath.workdps(50):
        half = dim // 2
        f = [mpmath.exp(-mpmath.log(mpmath.mpf(max_period)) * i / half) for i in range(half)]
        row = [mpmath.cos(t * x) for x in f] + [mpmath.sin(t * x) for x in f] + [0] * (dim % 2)
        return [float(x) for x in row]


class TestTimeEmbedding:
    @pytest.mark.parametrize("dim", [1, 2, 3, 8, 33, 128])
    @pytest.mark.parametrize("max_period", [10_000.0, 100.0])
    def test_agrees_with_50_digits(self, dim: int, max_period: float) -> None:
        times = [0, 1, 2, 17, 500, 999, 1000, 4000]
        truth = torch.tensor(
            [embedding_50_digits(t, dim, max_period) for t in times], dtype=torch.float64
        )
        embedded = time_embedding(torch.tensor(times), dim, max_period)
        assert embedded.dtype == torch.float32
        assert (embedded.double() - truth).abs().max() <= 2**-24  # half a unit in the last place

    @pytest.mark.parametrize("dim", [0, 2.5, True, "4"])
    def test_dim_is_a_positive_integer(self, dim) -> None:
        with pytest.raises(ValueError, match=f"dim is {dim!r}; it must be an integer of at least"):
            time_embedding(torch.tensor([1]), dim)

    @pytest.mark.parametrize("period", [1.0, math.inf, "long"])
    def test_the_longest_period_is_a_number_above_one(self, period) -> None:
        with pytest.raises(ValueError, match=f"max_period is {period!r}; .* a number above 1"):
            time_embedding(torch.tensor([1]), 4, period)

    def test_times_are_one_row(self) -> None:
        with pytest.raises(ValueError, match=r"t has shape \(2, 1\)"):
            time_embedding(torch.ones(2, 1, dtype=torch.int64), 4)

    def test_the_longest_period_is_ten_thousand_unless_said(self) -> None:
        t = torch.tensor([5000])
        assert torch.equal(time_embedding(t, 8), time_embedding(t, 8, 10_000.0))
        assert not torch.equal(time_embedding(t, 8), time_embedding(t, 8, 10_001.0))
        assert time_embedding(t, 8, max_period=1.5).isfinite().all()

    def test_one_time_for_the_batch_is_embedded_once(self) -> None:
        t = torch.tensor([7, 8, 9])
        assert distinct_times(t[:1].expand(2)).shape == (1,)
        assert distinct_times(t) is t
        assert distinct_times(t[1:2].expand(3)).tolist() == [8]
        assert distinct_times(t[:1]).tolist() == [7]


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """The layers that start at zero get values, so that outputs depend on everything."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.count_nonzero() == 0:
                parameter.normal_(std=0.1)
    return model


SMALL = [
    (MLP(dim=3, width=16, depth=2), (3,)),
    (MLP(dim=2, width=9, depth=1, classes=4, learned_variance=True), (2,)),
    (UNet(channels=1, width=8, multipliers=(1, 2)), (1, 8, 8)),
    (UNet(channels=3, width=8, multipliers=(1, 2, 2), blocks=2), (3, 12, 8)),
    (UNet(channels=2, width=8, multipliers=(2,)), (2, 7, 5)),
    (UNet(width=8, attention=[0, 1], classes=3, learned_variance=True), (1, 4, 8)),
    (DiT(width=16, depth=2), (1, 8, 6)),
    (DiT(channels=3, patch=3, width=8, heads=2, classes=2, learned_variance=True), (3, 3, 9)),
]
CONDITIONAL = [(model, shape) for model, shape in SMALL if model.config["classes"]]
TIMES = torch.tensor([1, 5, 500, 1000])


@pytest.mark.parametrize(("model", "shape"), SMALL)
class TestEveryNetwork:
    def test_untrained_predicts_zero(self, model, shape) -> None:
        x = torch.randn(4, *shape)
        copies = 2 if model.config["learned_variance"] else 1
        assert torch.equal(model(x, TIMES), torch.zeros(4, copies * shape[0], *shape[1:]))

    def test_every_weight_matters(self, model, shape) -> None:
        model = randomised(build(model.config))
        model(torch.randn(4, *shape), TIMES).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name

    def test_rows_are_independent_and_the_time_is_seen(self, model, shape) -> None:
        model = randomised(build(model.config))
        x, t = torch.randn(4, *shape), TIMES
        together = model(x, t)
        for i in range(4):
            alone = model(x[i : i + 1], t[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        assert (model(x, t.flip(0)) - together).abs().max() > 1e-3

    def test_expanded_time_gives_the_same_answer(self, model, shape) -> None:
        model = randomised(build(model.config))
        x, t = torch.randn(4, *shape), torch.tensor([321])
        torch.testing.assert_close(
            model(x, t.expand(4)), model(x, t.repeat(4)), rtol=1e-4, atol=1e-5
        )

    def test_config_survives_json_and_rebuilds_the_network(self, model, shape) -> None:
        twin = build(json.loads(json.dumps(model.config)))
        twin.load_state_dict(model.state_dict())
        assert type(twin) is NETWORKS[model.config["name"]]
        assert twin.config == model.config

    def test_samples_in_the_shape_of_the_noise(self, model, shape) -> None:
        model = build({**model.config, "learned_variance": False})
        x_T = torch.randn(2, *shape)
        x_0 = samplers.ddim(model, NoiseSchedule.linear().strided(3), x_T)
        # A network that predicts zero noise only undoes the shrinking of the data.
        scale = NoiseSchedule.linear().alpha_bar[1000] ** -0.5
        torch.testing.assert_close(x_0, (scale * x_T.double()).float(), rtol=1e-5, atol=0)

    def test_one_time_per_sample(self, model, shape) -> None:
        x, c = torch.randn(2, *shape), model.condition
        for t in (
            torch.tensor([1, 2, 3]),
            torch.tensor([1]),
            torch.tensor(1),
            torch.zeros(3, c),
            torch.zeros(2, c + 1),
            torch.zeros(2, c, dtype=torch.int64),
            torch.zeros(2, c, 1),
            5,
        ):
            given = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, torch.Tensor) else t
            shapes = re.escape(f"t is {given}; it must be (2,)") + f".*{c}"
            with pytest.raises(ValueError, match=shapes):
                model(x, t)

    def test_rows_of_embed_stand_for_times(self, model, shape) -> None:
        model = randomised(build(model.config))
        x, one = torch.randn(4, *shape), torch.tensor([321]).expand(4)
        assert torch.equal(model(x, model.embed_times(TIMES)), model(x, TIMES))
        assert model.embed_times(one).shape == (1, model.condition)
        assert torch.equal(model(x, model.embed_times(one)), model(x, one))
        rows = model.embed_times(TIMES)  # all times of a sampler in one call
        for i in range(4):
            torch.testing.assert_close(rows[i : i + 1], model.embed_times(TIMES[i : i + 1]))

    def test_the_first_half_is_the_prediction(self, model, shape) -> None:
        """With learned variance the output layer is the plain network's, and as much again."""
        both = randomised(build({**model.config, "learned_variance": True}))
        plain = build({**model.config, "learned_variance": False})
        weights = both.state_dict()
        for name in ("out.weight", "out.bias"):
            weights[name] = weights[name][: len(weights[name]) // 2]
        plain.load_state_dict(weights)
        x = torch.randn(4, *shape)
        mean, v = both(x, TIMES).split(shape[0], dim=1)
        torch.testing.assert_close(mean, plain(x, TIMES))
        assert mean.shape == v.shape == x.shape
        assert (mean - v).abs().max() > 1e-3

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_keeps_the_time(self, model, shape, dtype) -> None:
        model = randomised(build(model.config))
        x, t = torch.randn(4, *shape), torch.tensor([997, 998, 999, 1000])  # one in bfloat16
        truth, rows = model(x, t), model.embed_times(t)
        with torch.autocast("cpu", dtype):
            mixed, mixed_rows = model(x, t), model.embed_times(t)
        half = model.to(dtype)
        assert mixed.dtype == dtype
        for output in (mixed, half(x.to(dtype), t)):
            assert (output.float() - truth).norm() < 0.03 * truth.norm()
        for embedded in (mixed_rows, half.embed_times(t)):
            assert (embedded.float() - rows).norm() < 0.01 * rows.norm()

    def test_double_precision(self, model, shape) -> None:
        model = randomised(build(model.config))
        x = torch.randn(4, *shape)
        single = model(x, TIMES)
        torch.testing.assert_close(
            model.double()(x.double(), TIMES).float(), single, rtol=1e-4, atol=1e-5
        )

    def test_no_sample_at_all(self, model, shape) -> None:
        empty = model(torch.randn(0, *shape), TIMES[:0])
        assert empty.shape == model(torch.randn(1, *shape), TIMES[:1])[:0].shape

    def test_nothing_is_read_back_from_the_device(self, model, shape) -> None:
        """Meta tensors hold no values: whatever looked at one would fail."""
        model = build(model.config).to("meta")
        x, t = (
            torch.empty(4, *shape, device="meta"),
            torch.ones(4, dtype=torch.int64, device="meta"),
        )
        assert model(x, t).device.type == "meta"
        if model.config["classes"]:
            assert model(x, t, t).device.type == "meta"
            with pytest.raises(ValueError, match=r"int64 of shape \(3,\)"):
                model(x, t, t[:3])


@pytest.mark.parametrize(("model", "shape"), CONDITIONAL)
class TestLabels:
    def test_every_label_is_seen_and_the_last_means_none(self, model, shape) -> None:
        model, none = randomised(build(model.config)), model.config["classes"]
        x, t = torch.randn(1, *shape), torch.tensor([500])
        answers = [model(x, t, torch.tensor([k])) for k in range(none + 1)]
        assert torch.equal(model(x, t), answers[none])
        for i in range(none + 1):
            for k in range(i):
                assert (answers[i] - answers[k]).abs().max() > 1e-3

    def test_samples_keep_their_own_labels(self, model, shape) -> None:
        model, none = randomised(build(model.config)), model.config["classes"]
        x, labels = torch.randn(4, *shape), torch.tensor([0, none, 1, 0])
        for t in (TIMES, torch.tensor([321]).expand(4), model.embed_times(TIMES[:1])):
            together = model(x, t, labels)
            for i in range(4):
                t_i = t[i : i + 1] if len(t) == 4 else t
                alone = model(x[i : i + 1], t_i, labels[i : i + 1])
                torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)

    def test_the_row_of_the_label_is_added_to_that_of_the_time(self, model, shape) -> None:
        model, none = randomised(build(model.config)), model.config["classes"]
        x, labels = torch.randn(4, *shape), torch.tensor([1, none, 0, 1])
        table = model.label.weight
        rows = model.embed_times(TIMES) + table[labels] - table[none]
        torch.testing.assert_close(model(x, TIMES, labels), model(x, rows), rtol=1e-4, atol=1e-5)

    def test_only_the_labels_of_the_batch_learn(self, model, shape) -> None:
        model, none = randomised(build(model.config)), model.config["classes"]
        labels = torch.tensor([1, none, 1, 1])
        model(torch.randn(4, *shape), TIMES, labels).square().sum().backward()
        learning = model.label.weight.grad.abs().amax(dim=1) > 0
        assert learning.tolist() == [k in (1, none) for k in range(none + 1)]

    def test_bad_labels(self, model, shape) -> None:
        x, none = torch.randn(4, *shape), model.config["classes"]
        for labels, match in [
            (torch.tensor([0, 1, 0, none + 1]), rf"values from 0 to {none + 1}.*0..{none - 1}, or"),
            (torch.tensor([0, -1, 0, none]), f"values from -1 to {none}; .* {none} for no label"),
            (torch.tensor([0]), r"int64 of shape \(1,\); it must be int64, shape \(4,\)"),
            (torch.zeros(4, 1, dtype=torch.int64), r"int64 of shape \(4, 1\)"),
            (torch.zeros(4), "labels is torch.float32"),
            (torch.zeros(4, dtype=torch.bool), "labels is torch.bool"),
            ([0, 1, 0, 1], r"labels is \[0, 1, 0, 1\]; it must be int64, shape \(4,\)"),
            (1, "labels is 1; it must be"),
        ]:
            with pytest.raises(ValueError, match=match):
                model(x, TIMES, labels)


class TestShippedNetwork:
    def test_old_checkpoints_fit(self) -> None:
        """Written before there were labels: its configuration lacks the newer options."""
        path = Path(diffusion_lib.__file__).parent / "checkpoints" / "digits.safetensors"
        with safe_open(path, "pt") as file:
            weights = {
                name.removeprefix("ema."): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 (it is no dictionary)
                if name.startswith("ema.")
            }
        model = build({"name": "unet", "channels": 1, "width": 24, "multipliers": [1, 2]})
        model.load_state_dict(weights)
        assert model(torch.randn(2, 1, 8, 8), TIMES[:2]).std() > 0.1

    def test_seeds_draw_the_weights_they_always_drew(self) -> None:
        torch.manual_seed(0)
        layers = [nn.Linear(24, 48), nn.Linear(48, 48), nn.Conv2d(1, 24, 3, padding=1)]
        torch.manual_seed(0)
        model = UNet()
        assert torch.equal(model.time[0].weight, layers[0].weight)
        assert torch.equal(model.time[2].bias, layers[1].bias)
        assert torch.equal(model.inp.weight, layers[2].weight)
        torch.manual_seed(0)
        layers = [nn.Linear(128, 128), nn.Linear(2, 128), *(nn.Linear(128, 128) for _ in range(3))]
        torch.manual_seed(0)
        model = MLP()
        assert torch.equal(model.inp.weight, layers[1].weight)
        assert torch.equal(model.layers[2].weight, layers[4].weight)


def test_mlp_equals_its_formula() -> None:
    model = randomised(MLP(dim=2, width=8, depth=2, classes=3)).double()
    x, labels = torch.randn(4, 2).double(), torch.tensor([0, 3, 1, 2])
    told = model.time(time_embedding(TIMES, 8).double()) + model.label.weight[labels]
    h = model.inp(x)
    for layer in model.layers:
        inside = h + told
        h = h + layer(inside * inside.sigmoid())
    torch.testing.assert_close(model(x, TIMES, labels), model.out(h * h.sigmoid()))


class TestUNet:
    def test_every_block_is_told_the_condition_through_a_silu(self) -> None:
        model, told = UNet(width=8, multipliers=(1, 2), classes=3), []
        for module in model.modules():
            if isinstance(module, ResidualBlock):
                module.register_forward_hook(lambda _, inputs, __: told.append(inputs[1]))
        labels = torch.tensor([0, 3, 1, 2])
        model(torch.randn(4, 1, 4, 4), TIMES, labels)
        rows = model.time(time_embedding(TIMES, 8)) + model.label.weight[labels]
        assert len(told) == 2 + 2 + 4  # down, middle, up
        for condition in told:
            torch.testing.assert_close(condition, rows * rows.sigmoid())

    def test_attention_where_it_is_asked_for(self) -> None:
        def looked_at(attention: list[int]) -> list[tuple[int, ...]]:
            """The sizes that attention sees, in order."""
            model, sizes = UNet(width=8, multipliers=(1, 1, 2), attention=attention), []
            for module in model.modules():
                if isinstance(module, SelfAttention):
                    module.register_forward_hook(lambda _, x, __: sizes.append(x[0].shape[2:]))
            model(torch.randn(1, 1, 16, 8), torch.tensor([3]))
            return [tuple(size) for size in sizes]

        assert looked_at([]) == [(4, 2)]
        assert looked_at([1]) == [(8, 4), (4, 2), (8, 4), (8, 4)]
        assert looked_at([0, 2]) == [(16, 8), *[(4, 2)] * 4, (16, 8), (16, 8)]

    def test_number_of_weights(self) -> None:
        def weights(**options: object) -> int:
            return sum(
                p.numel() for p in UNet(width=16, multipliers=(1, 2), **options).parameters()
            )

        plain, c = weights(), 32
        attention = 2 * c + (c + 1) * 3 * c + (c + 1) * c  # normalisation; query, key, value; out
        assert weights(attention=[1]) == plain + 3 * attention  # one block down, two up
        assert weights(classes=10) == plain + 11 * 2 * 16
        assert weights(learned_variance=True) == plain + 9 * 16 + 1

    @pytest.mark.parametrize("width", [8, 16, 24, 40, 72])
    @pytest.mark.parametrize("multipliers", [(1,), (3, 1), (1, 2, 5)])
    def test_every_width_allowed_runs(self, width, multipliers) -> None:
        model = randomised(UNet(width=width, multipliers=multipliers, attention=[0]))
        assert model(torch.randn(1, 1, 4, 4), torch.tensor([3])).std() > 0


@pytest.mark.parametrize(("model", "shape"), [pair for pair in SMALL if len(pair[1]) == 3])
def test_channels_last_gives_the_same_answer(model, shape) -> None:
    model = randomised(build(model.config))
    x = torch.randn(4, *shape)
    truth = model(x, TIMES)
    again = model.to(memory_format=torch.channels_last)(
        x.to(memory_format=torch.channels_last), TIMES
    )
    torch.testing.assert_close(again, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_compiles_in_one_piece(name) -> None:
    small = {
        "mlp": MLP(dim=2, width=8, depth=1, classes=3),
        "unet": UNet(width=8, multipliers=(1,), classes=3),
        "dit": DiT(width=8, depth=1, classes=3),
    }
    model = randomised(small[name])
    x = torch.randn(2, 2) if name == "mlp" else torch.randn(2, 1, 4, 4)
    inputs = (x, TIMES[:2], torch.tensor([0, 2]))
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), model(*inputs))


def dit_by_hand(model: DiT, image: torch.Tensor, t: int, label: int) -> torch.Tensor:
    """Peebles and Xie's network for one image, float64, patch by patch and head by head."""
    w, config = model.state_dict(), model.config
    p, width, heads = config["patch"], config["width"], config["heads"]
    rows, columns = image.shape[1] // p, image.shape[2] // p

    def linear(name: str, v: torch.Tensor) -> torch.Tensor:
        return w[f"{name}.weight"] @ v + w[f"{name}.bias"]

    def silu(v: torch.Tensor) -> torch.Tensor:
        return v / (1 + torch.exp(-v))

    def gelu(v: torch.Tensor) -> torch.Tensor:
        return v / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))

    def shifted(v: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        normal = (v - v.mean()) / torch.sqrt(((v - v.mean()) ** 2).mean() + 1e-6)
        return normal * (1 + scale) + shift

    def wave(n: int, dim: int) -> torch.Tensor:
        return torch.tensor(embedding_50_digits(n, dim, 10_000.0), dtype=torch.float64)

    c = silu(linear("time.2", silu(linear("time.0", wave(t, width)))) + w["label.weight"][label])
    h = []
    for row in range(rows):
        for column in range(columns):
            pixels = image[:, row * p : row * p + p, column * p : column * p + p]
            seen = torch.stack([(kernel * pixels).sum() for kernel in w["inp.weight"]])
            where = torch.cat([wave(row, width // 2), wave(column, width // 2)])
            h.append(seen + w["inp.bias"] + where)
    for i in range(config["depth"]):
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = linear(
            f"blocks.{i}.modulation", c
        ).split(width)
        qkv = [linear(f"blocks.{i}.qkv", shifted(v, shift_1, scale_1)) for v in h]
        d = width // heads
        for patch in range(len(h)):
            mixed = []
            for head in range(heads):
                q = qkv[patch][head * d : head * d + d]
                keys = [v[width + head * d : width + head * d + d] for v in qkv]
                values = [v[2 * width + head * d : 2 * width + head * d + d] for v in qkv]
                weights = [torch.exp(q @ k / math.sqrt(d)) for k in keys]
                total = sum(weights)
                mixed.append(sum(a * v for a, v in zip(weights, values, strict=True)) / total)
            h[patch] = h[patch] + gate_1 * linear(f"blocks.{i}.mixed", torch.cat(mixed))
            inner = gelu(linear(f"blocks.{i}.mlp.0", shifted(h[patch], shift_2, scale_2)))
            h[patch] = h[patch] + gate_2 * linear(f"blocks.{i}.mlp.2", inner)
    shift, scale = linear("modulation", c).split(width)
    out = torch.empty(len(w["out.bias"]) // p**2, *image.shape[1:], dtype=torch.float64)
    for patch, v in enumerate(h):
        row, column = patch // columns * p, patch % columns * p
        pixels = linear("out", shifted(v, shift, scale)).reshape(-1, p, p)
        out[:, row : row + p, column : column + p] = pixels
    return out


class TestDiT:
    @pytest.mark.parametrize("size", [(6, 10), (4, 2), (2, 2)])
    @pytest.mark.parametrize("learned_variance", [False, True])
    def test_equals_the_definition_one_patch_and_head_at_a_time(self, size, learned_variance):
        model = DiT(3, width=16, depth=2, heads=2, classes=3, learned_variance=learned_variance)
        model = randomised(model).double()
        x, t, labels = (
            torch.randn(2, 3, *size).double(),
            torch.tensor([1, 700]),
            torch.tensor([2, 3]),
        )
        answers = model(x, t, labels)
        for i in range(2):
            by_hand = dit_by_hand(model, x[i], int(t[i]), int(labels[i]))
            torch.testing.assert_close(answers[i], by_hand, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        ("width", "depth", "heads", "millions"),
        [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
        ids=["S", "B", "L", "XL"],
    )
    def test_has_as_many_weights_as_in_the_paper(self, width, depth, heads, millions) -> None:
        """Peebles and Xie 2023, table 4; there 256 sinusoids of the time enter at every width."""
        with torch.device("meta"):
            model = DiT(4, 2, width, depth, heads, classes=1000, learned_variance=True)
        weights = sum(p.numel() for p in model.parameters()) - (width - 256) * width
        assert round(weights / 1e6) == millions

    def test_blocks_start_as_the_identity_and_the_output_without_time(self) -> None:
        model = DiT(width=16, depth=1)
        h = torch.randn(2, 5, 16)
        assert torch.equal(model.blocks[0](h, torch.randn(2, 16)), h)
        nn.init.normal_(model.out.weight)
        x = torch.randn(1, 1, 4, 4).expand(4, -1, -1, -1)
        torch.testing.assert_close(model(x, TIMES), model(x, TIMES.flip(0)))

    def test_places_are_told_apart(self) -> None:
        """Without them the output patches would change places as the input patches do."""
        model = randomised(DiT(width=16, depth=1))
        x, t = torch.randn(1, 1, 4, 4), torch.tensor([500])
        for axis in (2, 3):
            moved = model(x.roll(2, axis), t).roll(2, axis)
            assert (moved - model(x, t)).abs().max() > 1e-3


class TestSelfAttention:
    def test_equals_the_definition_one_pixel_and_head_at_a_time(self) -> None:
        attention = randomised(SelfAttention(16, heads=4)).double()
        x = torch.randn(2, 16, 3, 2, dtype=torch.float64)
        mixed = torch.empty_like(x)
        for image in range(2):
            q, k, v = attention.qkv(attention.norm(x[image : image + 1])).reshape(3, 4, 4, 6)
            for head in range(4):
                for pixel in range(6):
                    weights = torch.softmax(k[head].T @ q[head, :, pixel] / 2, dim=0)  # 2 = sqrt(4)
                    answer = v[head] @ weights
                    mixed[image, 4 * head : 4 * head + 4, pixel // 2, pixel % 2] = answer
        torch.testing.assert_close(attention(x), x + attention.out(mixed))


class TestErrors:
    def test_size_that_cannot_be_halved(self) -> None:
        model = UNet(multipliers=(1, 2, 2), width=8)
        with pytest.raises(ValueError, match=r"height 10.*halves images 2 times.*multiple of 4"):
            model(torch.randn(1, 1, 10, 8), torch.tensor([1]))
        with pytest.raises(ValueError, match=r"width 6.*multiple of 4"):
            model(torch.randn(1, 1, 8, 6), torch.tensor([1]))

    def test_wrong_channels_or_dimension(self) -> None:
        with pytest.raises(ValueError, match=r"takes \(B, 1, H, W\)"):
            UNet()(torch.randn(1, 3, 8, 8), torch.tensor([1]))
        with pytest.raises(ValueError, match=r"takes \(B, 2\)"):
            MLP(2)(torch.randn(1, 3), torch.tensor([1]))
        with pytest.raises(ValueError, match=r"takes \(B, 3, H, W\)"):
            DiT(3)(torch.randn(3, 8, 8), torch.tensor([1]))

    def test_size_that_cannot_be_cut_into_patches(self) -> None:
        model = DiT(patch=4)
        with pytest.raises(ValueError, match=r"height 10; this DiT cuts .* 4 x 4 .*multiple of 4"):
            model(torch.randn(1, 1, 10, 8), torch.tensor([1]))
        with pytest.raises(ValueError, match=r"width 0.*multiple of 4"):
            model(torch.randn(1, 1, 8, 0), torch.tensor([1]))

    @pytest.mark.parametrize("name", sorted(NETWORKS))
    def test_labels_for_a_network_without_classes(self, name) -> None:
        x = torch.randn(2, 2) if name == "mlp" else torch.randn(2, 1, 8, 8)
        with pytest.raises(ValueError, match="labels are given, but this network has no classes"):
            build({"name": name})(x, TIMES[:2], torch.tensor([0, 1]))

    def test_bad_sizes_of_networks(self) -> None:
        for make, match in [
            (lambda: MLP(dim=0), "dim is 0"),
            (lambda: MLP(width=2.0), "width is 2.0; it must be an integer of at least 1"),
            (lambda: MLP(classes=0), "classes is 0"),
            (lambda: MLP(classes=True), "classes is True"),
            (lambda: MLP(learned_variance=2), "learned_variance is 2; it must be True or False"),
            (lambda: UNet(width=12), "width is 12.*multiple of 8"),
            (lambda: UNet(multipliers=()), r"multipliers is \[\]; it must hold at least one"),
            (lambda: UNet(multipliers=(1, 0)), r"multipliers\[1\] is 0; it must be an integer"),
            (lambda: UNet(multipliers=[True, 2]), r"multipliers\[0\] is True"),
            (lambda: UNet(multipliers=2), "multipliers is 2; it must be a sequence of integers"),
            (lambda: UNet(multipliers="2"), "multipliers is '2'; it must be a sequence"),
            (lambda: UNet(multipliers=np.array([1.0])), r"multipliers\[0\] is 1.0"),
            (lambda: UNet(attention=[0, 2]), r"attention\[1\] is 2; .* one of 0..1, since"),
            (lambda: UNet(attention=[-1]), r"attention\[0\] is -1"),
            (lambda: UNet(attention=[0.0]), r"attention\[0\] is 0.0; it must be one of 0..1"),
            (lambda: UNet(attention=1), "attention is 1; it must be a sequence of integers"),
            (lambda: UNet(classes="ten"), "classes is 'ten'"),
            (lambda: UNet(learned_variance=None), "learned_variance is None"),
            (lambda: DiT(width=18, heads=2), "width is 18; .* multiple of 4: of heads, which is 2"),
            (lambda: DiT(width=64, heads=3), "width is 64; .* multiple of 12"),
            (lambda: DiT(patch=0), "patch is 0"),
            (lambda: DiT(heads=0), "heads is 0"),
            (lambda: DiT(classes=-1), "classes is -1"),
            (lambda: DiT(learned_variance="no"), "learned_variance is 'no'"),
            (lambda: UNet(blocks=0), "blocks is 0"),
            (lambda: build({"name": "vit"}), "'vit'.*mlp.*unet"),
            (
                lambda: build({"name": ["mlp"]}),
                r"network is \['mlp'\]; it must be one of mlp, unet",
            ),
            (lambda: build({"name": "mlp", "colour": 1}), "colour"),
            (lambda: build(None), "config is None; it must be a dictionary"),
        ]:
            with pytest.raises(ValueError, match=match):
                make()

    @pytest.mark.parametrize(
        "network",
        [
            MLP(np.int64(3), classes=torch.tensor(10)),
            UNet(np.uint8(3), multipliers=np.array([1, 2]), attention=torch.tensor([0])),
            DiT(width=np.uint8(128), depth=np.int32(2)),
        ],
        ids=lambda network: network.config["name"],
    )
    def test_integers_of_other_libraries_reach_a_checkpoint_as_pythons_own(self, network) -> None:
        assert json.loads(json.dumps(network.config)) == network.config


class TestDefaultNetwork:
    @pytest.mark.parametrize(
        ("shape", "levels"),
        [((1, 8, 8), 2), ((1, 28, 28), 3), ((3, 32, 32), 4), ((3, 9, 9), 1), ((1, 64, 48), 5)],
    )
    def test_images_run_through_it(self, shape, levels) -> None:
        model = default_network(shape)
        assert len(model.config["multipliers"]) == levels
        assert model(torch.randn(1, *shape), torch.tensor([3])).shape == (1, *shape)

    def test_vectors(self) -> None:
        assert default_network((5,)).config["dim"] == 5

    def test_options_reach_the_network(self) -> None:
        for shape in ((2,), (1, 8, 8)):
            plain = default_network(shape).config
            model = default_network(shape, classes=10, learned_variance=True)
            assert model.config == {**plain, "classes": 10, "learned_variance": True}
            with pytest.raises(ValueError, match="colour"):
                default_network(shape, colour=1)
        assert default_network((1, 8, 8), attention=[0]).config["attention"] == [0]

    def test_shapes_it_cannot_serve(self) -> None:
        with pytest.raises(ValueError, match="101 x 101"):
            default_network((3, 101, 101))
        for shape, found in (
            ((8, 8), "shape is (8, 8); it must be (d,) or (C, H, W)"),
            (("a",), "shape[0] is 'a'; it must be an integer"),
            ((1, 8, 0), "shape[2] is 0; it must be an integer"),
            (2, "shape is 2; it must be a sequence of integers"),
        ):
            with pytest.raises(ValueError, match=re.escape(found)):
                default_network(shape)

    def test_the_digits_network_is_small(self) -> None:
        weights = sum(p.numel() for p in default_network((1, 8, 8)).parameters())
        assert 300_000 < weights < 500_000
