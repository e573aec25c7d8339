"""One sentence for a number that is none."""

from operator import index


def integer(owner: str, name: str, value: object, least: int) -> int:
    """Return an integer of at least ``least``; TypeError for another type, ValueError for a smaller one.

    >>> integer("repeat", "times", 3, 0)
    3
    """
    try:
        number = index(value)  # pyright: ignore[reportArgumentType] -- what is no integer is answered below
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{owner} expects an integer {name}, got {value!r}; pass {least} or more.")
    if number < least:
        raise ValueError(f"{owner} expects {name} of at least {least}, got {number}; raise it.")
    return number
