"""What a search tells its user besides the front."""

from search.codesign import _unpriced
from search.space import CoDesignSpace


def test_memories_without_a_known_background_power_are_named():
    assert _unpriced(CoDesignSpace.load("demo")) == []
    (note,) = _unpriced(CoDesignSpace.load("published"))
    assert note.startswith("the background power of rram is not known")
