"""Draw the film of the welcome page: noise becoming digits, by the checkpoint in the library.

python tools/draw_film.py
"""

from pathlib import Path

import torch

from diffusion_lib import figures, samplers
from diffusion_lib.training import load_pretrained

PICTURE = Path(__file__).parents[1] / "book" / "_static" / "film.png"
FRAMES = [0, 14, 24, 30, 34, 38, 41, 44, 47, 49]  # of 50 steps: digits take shape late
ROWS = [1, 2, 7, 9]


def main() -> None:
    model, schedule, _ = load_pretrained("digits", device="cpu")
    x_T = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    film: list[samplers.Step] = []
    samplers.ddim(model, schedule.strided(50), x_T, callback=film.append)
    figure, axes = figures.subplots(len(ROWS), len(FRAMES), figsize=(7.4, 3.0))
    for line, row in zip(axes, ROWS, strict=True):
        for ax, frame in zip(line, FRAMES, strict=True):
            image = film[frame].x_s[row, 0].numpy()
            ax.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="bicubic")
            ax.axis("off")
    PICTURE.write_bytes(figures.png(figure))


if __name__ == "__main__":
    main()
