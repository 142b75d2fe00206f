"""HTML pages of reports: one frame and style, which a report's own template extends."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from features.names import printable

FRAME = Path(__file__).with_name("page_template.html")


def render_page(template: Path, *, figures: Iterable[tuple[str, str, bytes]], **values: Any) -> str:
    """One page that needs no other file; all text from outside is escaped, and the page forbids scripts.

    Args:
        template: a file that extends the frame.
        figures: name, caption and PNG of each picture; the template sees them as `figures`.
        values: what else the template names.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, FRAME.parent]),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        {"name": name, "caption": caption, "data": base64.b64encode(image).decode()}
        for name, caption, image in figures
    ]
    return environment.get_template(template.name).render(figures=shown, **values)


def _shown(value: Any) -> Any:
    """What a template inserts, without control characters."""
    return printable(value) if isinstance(value, str) else value
