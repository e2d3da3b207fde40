"""Main memory as an accelerator's test bench has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any


class MainMemoryModel:
    """Answers requests in order after a fixed latency, and refuses those beyond its rate.

    A word beyond what it holds is 0. Requests may come early by less than a cycle, since the time
    of a word is seldom a whole number of cycles: among any of them, m + 1 take at least
    ⌈m · word bits / rate⌉ cycles, less one.

    Parameters
    ----------
    request : port of the accelerator's requests, whose payload is read as `str(request.value)`
    data : port of its answers, which takes `data.set(payload)`
    layout : of both ports' payloads: the lowest bit of each field, "memory.enable",
        "memory.address", "memory.tag", "memory_data.valid", "memory_data.tag",
        "memory_data.word", and the bits of "address" and "tag"
    memory : `words` in hexadecimal digits, `latency` in cycles, and the cycles of a word as
        `numerator` and `denominator`; None where a request is an error
    """

    def __init__(
        self, request: Any, data: Any, layout: Mapping[str, int], memory: Mapping[str, Any] | None
    ) -> None:
        self._request, self._data, self._layout, self._memory = request, data, layout, memory
        self._words = [int(word, 16) for word in memory["words"]] if memory else []
        self._latency = memory["latency"] if memory else 0
        # Times are multiples of 1 / denominator of a cycle.
        self._word = memory["numerator"] if memory else 0
        self._cycle = memory["denominator"] if memory else 1
        self._next = 0
        self._answers: deque[tuple[int, int]] = deque()
        self._enable = -1 - layout["memory.enable"]
        self._set = False
        data.set(0)

    def drive(self, number: int) -> None:
        """Give what is due in cycle `number`; before its rising edge."""
        if self._answers and self._answers[0][0] == number:
            self._data.set(self._answers.popleft()[1])
            self._set = True
        elif self._set:
            self._data.set(0)
            self._set = False

    def sample(self, number: int) -> None:
        """Look for a request in cycle `number`, once outputs have settled.

        Raises
        ------
        RuntimeError
            If there is no memory, or the request comes sooner than the rate allows.
        """
        bits = str(self._request.value)
        if bits[self._enable] != "1":
            return
        if self._memory is None:
            raise RuntimeError(f"cycle {number}: a request where there is no main memory")
        now = number * self._cycle
        if now <= self._next - self._cycle:
            raise RuntimeError(
                f"cycle {number}: a request before main memory's rate allows another one")
        self._next = max(self._next, now) + self._word
        address, tag = self._field(bits, "address"), self._field(bits, "tag")
        word = self._words[address] if address < len(self._words) else 0
        layout = self._layout
        self._answers.append((number + self._latency, (
            1 << layout["memory_data.valid"] | tag << layout["memory_data.tag"]
            | word << layout["memory_data.word"])))

    def _field(self, bits: str, name: str) -> int:
        stop = len(bits) - self._layout[f"memory.{name}"]
        return int(bits[stop - self._layout[name] : stop], 2)
