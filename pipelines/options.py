"""What the options of several commands have in common."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from features.errors import ConfigError


def at_least_one(text: str) -> int:
    """A whole number from 1 on, as the `type` of an option."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """A finite number in these bounds, as the `type` of an option.

    Example:
        >>> number(0)("nan")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be a number of at least 0, got 'nan'
    """

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            bounds = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"must be a number {bounds}, got {text!r}")
        return value

    return read


def only_with(
    form: str,
    names: str,
    arguments: argparse.Namespace,
    add_arguments: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Refuse options that the form of the command which was asked for does not read.

    Args:
        form: what the options are for, such as `--compare`.
        names: the options without their dashes, separated by spaces.
        arguments: what was given.
        add_arguments: declares the options of the command, and so says which values were not given.

    Raises:
        ConfigError: one of them was given.

    Example:
        >>> def declare(parser):
        ...     _ = parser.add_argument("--port", type=int, default=8765)
        >>> only_with("--serve", "port", argparse.Namespace(port=80), declare)
        Traceback (most recent call last):
        features.errors.ConfigError: --port is for --serve and would do nothing here; leave it out
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    options = {action.option_strings[0]: action.dest for action in parser._actions if action.option_strings}
    wanted = [f"--{name}" for name in names.split()]
    given = [n for n in wanted if getattr(arguments, options[n]) != parser.get_default(options[n])]
    if not given:
        return
    verb, them = ("is", "it") if len(given) == 1 else ("are", "them")
    raise ConfigError(f"{', '.join(given)} {verb} for {form} and would do nothing here; leave {them} out")
