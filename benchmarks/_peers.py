"""How other SDKs wait, as schedules: one request per task per tick, whatever the host reports.

Taken from what their packages do when nothing is configured:

- openai 3.54.0, `videos.poll`: a look at once, then every second (a host can name another pause; ours does not).
- replicate 1.0.7, `Prediction.async_wait`: every 0.5 s, the first after the first pause.
- fal-client 1.0.3, `AsyncRequestHandle.get`: a look at once, then every 0.1 s, and one more request for the result.
- legnext 0.3.0, `wait_for_completion`: a look at once, then every 3 s.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ._sim import Measured


@frozen
class Peer:
    """A look `first` seconds after the submit, then `pause` seconds after each answer; `extra` requests at the end."""

    name: str
    first: float
    pause: float
    extra: int = 0

    def wait(self, durations: Sequence[float], latency: float) -> Measured:
        """Wait for tasks of these durations (seconds)."""
        measured = Measured()
        for seconds in durations:
            looks, answered = 1, self.first + latency
            while answered < seconds:
                looks, answered = looks + 1, answered + self.pause + latency
            measured.requests += looks + self.extra
            measured.delays.append(answered + self.extra * latency - seconds)
        measured.ids = measured.requests
        return measured


PEERS = (
    Peer("openai", 0.0, 1.0),
    Peer("replicate", 0.5, 0.5),
    Peer("fal", 0.0, 0.1, extra=1),
    Peer("legnext", 0.0, 3.0),
)
