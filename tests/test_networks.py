"""Networks: the embedding against 50 digits, gradients that reach everything, shapes and errors."""

import json
import re

import mpmath
import pytest
import torch

from diffusion_lib import samplers
from diffusion_lib.networks import MLP, NETWORKS, UNet, build, default_network, time_embedding
from diffusion_lib.networks.time_embedding import distinct_times
from diffusion_lib.networks.unet import SelfAttention
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

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="dim is 0"):
            time_embedding(torch.tensor([1]), 0)
        with pytest.raises(ValueError, match="max_period is 1"):
            time_embedding(torch.tensor([1]), 4, max_period=1.0)
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
    (UNet(channels=1, width=8, multipliers=(1, 2)), (1, 8, 8)),
    (UNet(channels=3, width=8, multipliers=(1, 2, 2), blocks=2), (3, 12, 8)),
    (UNet(channels=2, width=8, multipliers=(2,)), (2, 7, 5)),
]


@pytest.mark.parametrize(("model", "shape"), SMALL)
class TestEveryNetwork:
    def test_untrained_predicts_zero(self, model, shape) -> None:
        x, t = torch.randn(4, *shape), torch.tensor([1, 5, 500, 1000])
        assert torch.equal(model(x, t), torch.zeros_like(x))

    def test_every_weight_matters(self, model, shape) -> None:
        model = randomised(build(model.config))
        model(torch.randn(4, *shape), torch.tensor([1, 5, 500, 1000])).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name

    def test_rows_are_independent_and_the_time_is_seen(self, model, shape) -> None:
        model = randomised(build(model.config))
        x, t = torch.randn(4, *shape), torch.tensor([1, 5, 500, 1000])
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
        x_T = torch.randn(2, *shape)
        x_0 = samplers.ddim(model, NoiseSchedule.linear().strided(3), x_T)
        # A network that predicts zero noise only undoes the shrinking of the data.
        scale = NoiseSchedule.linear().alpha_bar[1000] ** -0.5
        torch.testing.assert_close(x_0, (scale * x_T.double()).float(), rtol=1e-5, atol=0)

    def test_one_time_per_sample(self, model, shape) -> None:
        with pytest.raises(ValueError, match=r"t has shape \(3,\).*\(2,\)"):
            model(torch.randn(2, *shape), torch.tensor([1, 2, 3]))


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

    def test_bad_sizes_of_networks(self) -> None:
        for make, match in [
            (lambda: MLP(dim=0), "dim is 0"),
            (lambda: UNet(width=12), "width is 12.*multiple of 8"),
            (lambda: UNet(multipliers=()), "multipliers is"),
            (lambda: UNet(blocks=0), "blocks is 0"),
            (lambda: build({"name": "vit"}), "'vit'.*mlp.*unet"),
            (lambda: build({"name": "mlp", "colour": 1}), "colour"),
            (lambda: build(None), "config is None; it must be a dictionary"),
        ]:
            with pytest.raises(ValueError, match=match):
                make()


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

    def test_shapes_it_cannot_serve(self) -> None:
        with pytest.raises(ValueError, match="101 x 101"):
            default_network((3, 101, 101))
        for shape in ((8, 8), ("a",), (1, 8, 0), (2.0,)):
            with pytest.raises(ValueError, match=re.escape(f"shape is {shape}; it must be")):
                default_network(shape)

    def test_the_digits_network_is_small(self) -> None:
        weights = sum(p.numel() for p in default_network((1, 8, 8)).parameters())
        assert 300_000 < weights < 500_000
