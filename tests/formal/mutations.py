"""One wrong line, to see that a proof can fail."""

import inspect
import sys
import textwrap


def mutated(original, right, wrong):
    """Return a function in whose source one piece of text is another.

    Parameters
    ----------
    original : function or method
    right, wrong : what stands in the source exactly once, and what shall stand there

    Raises
    ------
    ValueError
        If the text does not stand there exactly once: the mutation is out of date.
    """
    source = textwrap.dedent(inspect.getsource(original))
    if source.count(right) != 1:
        raise ValueError(
            f"{right!r} stands {source.count(right)} times in {original.__qualname__}, not once")
    scope = dict(vars(sys.modules[original.__module__]))
    exec(source.replace(right, wrong), scope)
    return scope[original.__name__]


def mutated_class(original, right, wrong, method="elaborate"):
    """Return a subclass with a mutated method."""
    return type(original.__name__, (original,), {
        method: mutated(getattr(original, method), right, wrong)})
