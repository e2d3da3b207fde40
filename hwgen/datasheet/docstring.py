"""Docstrings in numpydoc form: their text, their sections, and what they say as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_RULE = re.compile(r"^-{3,}$")
_ENTRY = re.compile(r"^(?P<names>[A-Za-z_][\w, ]*?) : (?P<text>.*)$")


@dataclass(frozen=True)
class Docstring:
    """A docstring taken apart.

    Parameters
    ----------
    summary : its first paragraph, on one line
    body : the paragraphs between summary and first section
    sections : lines of each section by its title
    """

    summary: str
    body: str
    sections: Mapping[str, str]

    @classmethod
    def of(cls, documented: Any) -> Docstring:
        """Take apart the docstring of a module, a class or a function.

        Raises
        ------
        ValueError
            If it has none.
        """
        text = inspect.getdoc(documented)
        if not text:
            raise ValueError(f"{documented.__name__} has no docstring")
        lines = text.splitlines()
        titles = [
            number
            for number, line in enumerate(lines[1:])
            if _RULE.match(line) and lines[number].strip()
        ]
        first = titles[0] if titles else len(lines)
        sections = {
            lines[start].strip(): "\n".join(lines[start + 2 : end]).strip("\n")
            for start, end in pairwise([*titles, len(lines)])
        }
        summary, _, body = "\n".join(lines[:first]).partition("\n\n")
        return cls(" ".join(summary.split()), body.strip(), sections)

    def entries(self, section: str) -> list[tuple[tuple[str, ...], str]]:
        """Names and text of a section's entries: `name, name : text`, continued if indented."""
        found: list[tuple[tuple[str, ...], str]] = []
        for line in self.sections.get(section, "").splitlines():
            entry = _ENTRY.match(line)
            if entry:
                names = tuple(name.strip() for name in entry["names"].split(","))
                found.append((names, entry["text"].strip()))
            elif line.startswith(" ") and found:
                names, text = found[-1]
                found[-1] = (names, f"{text} {line.strip()}")
        return found

    def by_name(self, section: str) -> dict[str, str]:
        """What a section says of each name."""
        return {name: text for names, text in self.entries(section) for name in names}


def as_markdown(text: str) -> str:
    """Escape what Markdown would take for markup; what stands in backticks stays as it is."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<|\\])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
