"""How long tasks take, in emulated seconds.  Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

from attrs import frozen

#: Draws, from the task's own generator, how many seconds pass from its admission to its end.
Duration = Callable[[Random], float]

#: The normal quantile of 0.95.
_Z95 = 1.6449


@frozen
class Lognormal:
    """Seconds of which half lie under `median` and 95 % under `p95`, never outside `shortest`..`longest`."""

    median: float
    p95: float
    shortest: float
    longest: float

    def __call__(self, rng: Random) -> float:
        """Draw one duration, seconds."""
        sigma = math.log(self.p95 / self.median) / _Z95
        drawn = self.median * math.exp(rng.gauss(0, sigma))
        return min(max(drawn, self.shortest), self.longest)


@frozen
class Constant:
    """Always the same number of seconds."""

    seconds: float

    def __call__(self, _rng: Random) -> float:
        """Return it."""
        return self.seconds


#: From the vendor's "typical" figures: fast 25-80 s, turbo about 15 s, relax 40 s to many minutes.
DURATIONS: Mapping[str, Duration] = {
    "fast": Lognormal(median=45, p95=120, shortest=8, longest=600),
    "mixed": Lognormal(median=45, p95=120, shortest=8, longest=600),
    "turbo": Lognormal(median=15, p95=25, shortest=5, longest=90),
    "relax": Lognormal(median=150, p95=600, shortest=30, longest=3600),
    # Other systems, by what they make (our choice: the orders of magnitude that users report).
    "image": Lognormal(median=12, p95=40, shortest=3, longest=300),
    "audio": Lognormal(median=40, p95=120, shortest=8, longest=600),
    "model": Lognormal(median=60, p95=180, shortest=15, longest=900),
    "video": Lognormal(median=150, p95=420, shortest=30, longest=3600),
}
