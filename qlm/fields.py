"""The types of a config's fields: one sentence for a value of another one."""

import reprlib
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints


def check_types(owner: str, config: Any) -> None:
    """Raise TypeError where a field annotated bool, int, float, str or a tuple of one of them holds something else.

    An integer is a float too, a list a tuple, as JSON has it; a bool is no number. Fields of other annotations are
    left to the config.

    >>> from qlm.heads.born_mps import BornMPSConfig
    >>> BornMPSConfig(bond=2.5)
    Traceback (most recent call last):
    TypeError: born_mps expects bond as int, got 2.5; correct it.
    """
    annotations = get_type_hints(type(config))
    for field in fields(config):
        value, expected = getattr(config, field.name), annotations[field.name]
        if not _fits(value, expected):
            name = getattr(get_origin(expected) or expected, "__name__", str(expected))
            if args := get_args(expected):
                name += f" of {args[0].__name__}"
            raise TypeError(f"{owner} expects {field.name} as {name}, got {reprlib.repr(value)}; correct it.")


def _fits(value: object, expected: Any) -> bool:
    if get_origin(expected) is tuple:
        return isinstance(value, list | tuple) and all(_fits(part, get_args(expected)[0]) for part in value)
    if expected is float:
        return isinstance(value, float) or type(value) is int
    return expected not in (bool, int, str) or type(value) is expected
