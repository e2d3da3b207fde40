"""Co-design: searching pairs of a transformer and the accelerator that runs it."""

from search.codesign import CoDesign
from search.run import Front, Pair, Run
from search.space import CoDesignSpace

__all__ = ["CoDesign", "CoDesignSpace", "Front", "Pair", "Run"]
