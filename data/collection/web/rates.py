"""How often anyone may ask: by address and name before there is a session, by person after."""

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

RATES = {
    "password": "10/minute",  # an address tries passwords
    "name": "30/minute",  # passwords are tried for a name, from wherever
    "entering": "300/minute",  # an address enters by personal links: a whole office at nine o'clock
    "asking": "1200/minute",  # a person does anything
}


class Rates:
    """Counts in memory: one process serves a collection, and a restart forgives."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._items: dict[str, RateLimitItem] = {kind: parse(rate) for kind, rate in RATES.items()}

    def allows(self, kind: str, who: str) -> bool:
        """Counts one request of this kind; whether it is within the rate."""
        return self._limiter.hit(self._items[kind], kind, who)
