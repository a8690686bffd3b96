"""How often one person may ask: a bucket that fills steadily and holds a short burst."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from opsagent_jupyter.errors import TooManyRequests

#: People whose buckets are remembered; whoever is forgotten starts with a full one.
REMEMBERED = 10_000


@dataclass
class Bucket:
    """What one person has left."""

    left: float
    at: float


class Rates:
    """Counts requests by person; used on one thread."""

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, actor: str) -> None:
        """Take one from a person's bucket; ``TooManyRequests`` says after how many seconds there is one again."""
        now = time.monotonic()
        bucket = self._buckets.pop(actor, None) or Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[actor] = bucket
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            seconds = (1 - bucket.left) / self._per_second
            raise TooManyRequests(seconds=seconds)
        bucket.left -= 1
