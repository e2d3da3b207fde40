"""One wrong line in a class, to see that a proof can fail."""

import inspect
import sys
import textwrap


def mutated(original, method, right, wrong):
    """Return a subclass in one of whose methods one piece of text is another.

    Parameters
    ----------
    original : class
    method : name of its method
    right, wrong : what stands in the method's source exactly once, and what shall stand there

    Raises
    ------
    ValueError
        If the text does not stand there exactly once: the mutation is out of date.
    """
    source = textwrap.dedent(inspect.getsource(getattr(original, method)))
    if source.count(right) != 1:
        raise ValueError(f"{original.__name__}.{method} holds {right!r} {source.count(right)} times")
    scope = dict(vars(sys.modules[original.__module__]))
    exec(source.replace(right, wrong), scope)
    return type(original.__name__, (original,), {method: scope[method]})
