"""Checks that the units' parameters share."""

from __future__ import annotations


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Refuse an integer outside low to high.

    Raises
    ------
    ValueError
        Names the parameter, what is allowed and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def check_power_of_two(name: str, value: int, high: int) -> None:
    """Refuse what is no power of two from 1 to `high`.

    Raises
    ------
    ValueError
        Names the parameter, what is allowed and the value.
    """
    check_range(name, value, 1, high)
    if value & (value - 1):
        raise ValueError(f"{name} must be a power of two from 1 to {high}, not {value}")


def check_choice(name: str, value: str | int, choices: tuple[str | int, ...]) -> None:
    """Refuse what is not among the choices.

    Raises
    ------
    ValueError
        Names the parameter, what is allowed and the value.
    """
    if value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
