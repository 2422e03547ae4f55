"""JSON as the standard has it: no key twice, no NaN, no broken text."""

import json
from collections import Counter
from typing import Any, NoReturn

from glm_jax.errors import InputError


def parse_json(data: bytes, place: str) -> Any:
    """The value of a JSON text in UTF-8. Raises InputError, which names `place`."""
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_int=lambda digits: -0.0 if digits == "-0" else int(digits),
        )
    except RecursionError:
        raise InputError(f"{place}: not JSON (nested too deeply)") from None
    except ValueError as error:
        raise InputError(f"{place}: not JSON ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    "".join(text for pair in pairs for text in pair if isinstance(text, str)).encode()
    values = dict(pairs)
    if len(values) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} appears twice")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
