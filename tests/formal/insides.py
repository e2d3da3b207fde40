"""Signals and memories inside a unit, for the invariants that its proof needs."""

from amaranth.hdl import Const, Fragment, MemoryInstance, Signal


def insides(unit):
    """Elaborate a unit.

    Returns
    -------
    (fragment, signals) : the fragment takes the unit's place as a submodule; the signals by their
        names, after the names of the submodules that drive them, as in "memory.read_data". A name
        that stands for several is left out.
    """
    fragment = Fragment.get(unit, None)
    return fragment, {name: signal for name, signal in _signals(fragment, "") if signal is not None}


def _signals(fragment, prefix):
    found = {}
    for statements in fragment.statements.values():
        for signal in statements._lhs_signals():
            if found.setdefault(signal.name, signal) is not signal:
                found[signal.name] = None
    for name, signal in found.items():
        yield prefix + name, signal
    for child, name, _ in fragment.subfragments:
        yield from _signals(child, f"{prefix}{name}.")


def memory_of(fragment):
    """Return the one memory in a fragment.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    memory, = _memories(fragment)
    return memory


def _memories(fragment):
    if isinstance(fragment, MemoryInstance):
        yield fragment
    for child, _, _ in fragment.subfragments:
        yield from _memories(child)


def stored(m, memory, address):
    """Return what stands at an address of a memory, by a port of its own."""
    index, word = Signal(range(memory._data.depth)), Signal(memory._data.shape)
    m.d.comb += index.eq(address)
    memory.read_port(domain="comb", addr=index, data=word, en=Const(1), transparent_for=())
    return word
