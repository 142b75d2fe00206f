"""Names from elsewhere: checked before they become parts of a path, escaped before they are shown."""

from __future__ import annotations

import re
from pathlib import Path

from features.errors import ConfigError

# C0 without tab and line end, DEL, C1, separators of lines, marks of direction, and halves of surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check_name(name: str, what: str) -> str:
    """Return `name` if it can safely be one part of a path.

    Args:
        name: 1 to 128 of the characters A-Z a-z 0-9 _ . - of which the first is a letter or a digit.
        what: what is named, for the error message: "feature", say.

    Raises:
        ConfigError: any other name, hence also `..`, separators, control characters and option-like names.

    Example:
        >>> check_name("clicks.v2", "domain")
        'clicks.v2'
    """
    # fullmatch: `$` would let a trailing newline through.
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = repr(name) if len(repr(name)) <= 60 else f"{repr(name)[:60]}…"
        raise ConfigError(
            f"a {what} name must start with a letter or digit and hold only letters, digits, '_', '.' "
            f"and '-' (at most 128), got {shown}; rename it"
        )
    return name


def under(root: str | Path, *parts: str) -> Path:
    """Return the path `root/part/part…`, which lies under `root` also after symbolic links are followed.

    Args:
        root: a trusted directory, which need not exist yet.
        parts: names, each checked by `check_name`.

    Raises:
        ConfigError: a part is not a name, or a symbolic link leads out of `root`.

    Example:
        >>> under("runs", "demo", "config.yaml").as_posix()
        'runs/demo/config.yaml'
    """
    root = Path(root)
    path = root.joinpath(*(check_name(part, "path") for part in parts))
    try:
        real_root, real = root.resolve(), path.resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{path}: its symbolic links must lead somewhere ({error}); remove the link"
        ) from error
    if not real.is_relative_to(real_root):
        raise ConfigError(
            f"{path}: must stay under {root}, but a symbolic link leads to {real}; remove the link"
        )
    return path


def printable(text: str) -> str:
    """The text with its control characters escaped, except line ends and tabs.

    A value of a log may hold what clears a screen, hides a line, or reverses the direction of reading.

    Example:
        >>> printable("a\\x1b[2Jb\\rc")
        'a\\\\x1b[2Jb\\\\rc'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The same with line ends and tabs escaped too, for a cell or a label.

    Example:
        >>> one_line("a\\nb")
        'a\\\\nb'
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


class Markup(str):
    """A text that is Markdown on purpose."""

    __slots__ = ()


def markdown(text: str) -> str:
    """The text as one line or cell of a Markdown page: nothing of it is markup, unless it is `Markup`.

    Example:
        >>> markdown("a|b <i>[x](y)\\n# c"), markdown(Markup("`a|b`"))
        ('a\\\\|b &lt;i>\\\\[x](y)\\\\n# c', '`a\\\\|b`')
    """
    line = one_line(text).replace("|", r"\|")
    return line if isinstance(text, Markup) else line.replace("<", "&lt;").replace("[", r"\[")


def code_span(text: str) -> Markup:
    """The text as code in a Markdown page."""
    return Markup(f"`{text.replace('`', chr(39))}`")
