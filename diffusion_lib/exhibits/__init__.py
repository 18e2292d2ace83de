r"""The museum of wrong formulas: published slips, ready to be planted in the library.

An `Exhibit` is a wrong formula together with the function whose place it takes, what the slip is,
where it was seen, and a check that catches it. Inside ``with planted(exhibit):`` the library itself
is wrong: everything that calls the function, training and sampling included, gets the slip. On
leaving the block it is right again. (Chapter 14.)

No module of the library imports this one. The wrong formulas are plain functions on any kind of
number, like those of `closed_forms`. The checks hold the library's functions, whatever they compute
at the time, against another derivation or against what they are for. Each check passes when nothing
is planted.

Where a slip was seen is said by the claim of the notes that made it ("P6"), or by "W" and a number:
the 22 kinds collected from other published material. The chapter lists them.
"""

from .catalogue import EXHIBITS
from .exhibit import ONE_STEP_BETA, POINT, Exhibit, planted
from .planting import replaced

__all__ = ["EXHIBITS", "ONE_STEP_BETA", "POINT", "Exhibit", "planted", "replaced"]
