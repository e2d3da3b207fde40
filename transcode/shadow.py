"""Find files of the user that hide the packages of this distribution."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = ("hwgen", "model", "sim", "search")


def shadowed() -> str | None:
    """Say which file hides a package of ours, in a sentence, or None.

    `model`, `sim` and `search` are names that a user's own files may have, and Python looks into
    the current folder first when it is started with `python -m`.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        origin = Path(found.origin).resolve() if found and found.origin else None
        if origin is None:
            return f"the package {name} of transcode-codesign is not installed: install it again"
        if origin.parent.parent != home:
            return (
                f"{origin} hides transcode's own package {name}: rename it, or run transcode "
                "from another folder"
            )
    return None
