"""How reports and pages write numbers: for a person, with units, an absent number as a dash."""

from __future__ import annotations

import re
from datetime import UTC, datetime

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{bare(share)}{THIN}%"


def points(share: float | None) -> str:
    """A difference of shares in percentage points, signed."""
    return "–" if share is None else _minus(f"{100 * share:+z.1f}")


def span(low: float | None, high: float | None, plus: bool = True) -> str:
    """An interval of shares, in percentage points."""
    if low is None or high is None:
        return "–"
    return _minus(" to ".join(f"{100 * end:{'+' if plus else ''}z.1f}" for end in (low, high)))


def number(value: float | None) -> str:
    return "–" if value is None else _minus(f"{value:z.2f}")


def signed(value: float | None) -> str:
    return "–" if value is None else _minus(f"{value:+z.2f}")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n}{THIN}{unit}" for n, unit in parts if n) or f"{seconds:.1f}{THIN}s"


def moment(seconds: float | None) -> str:
    """A time in seconds since 1970, in UTC."""
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def bare(share: float | None) -> str:
    """A share in percent, without the sign of percent."""
    return "–" if share is None else f"{100 * share:.1f}"


def _minus(text: str) -> str:
    """With a real minus sign, and zero without a sign."""
    return re.sub(r"\+(0\.0+)\b", r"\1", text).replace("-", MINUS)
