r"""diffusion_lib: the formulas that the book proves, running.

Imports run downwards only: `arguments`, `closed_forms` ← `schedule`, `prediction` ← `process`,
`targets` ← `objectives` ← `samplers`, `exact` ← `networks`, `data`, `evaluation`, `checkpoint` ←
`training` ← the command line. `derive` and `verify` are what the chapters use to prove things about
`closed_forms`; `exhibits` holds wrong formulas, which nothing imports and a chapter plants.
"""

__version__ = "0.1.0"
