"""A layer of a model on an accelerator: its buffers before the program, and what must be behind."""

from __future__ import annotations

import numpy as np

from hwgen.simulation.machine import MachineCase, MachineResult, Word
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import pack
from rtl_tests.buffer_contents import read_rows, words_of_lines
from sim.layer import LayerProgram
from sim.placement import Tensor


def machine_case(layer: LayerProgram) -> MachineCase:
    """Put the layer's input into its buffer, weights into main memory; its result is read back."""
    spec = AcceleratorSpec.of(layer.plans[0].design)
    written = {plan.task.label for plan in layer.plans}
    activations: dict[Word, int] = {}
    for name, tensor in layer.placement.tensors.items():
        if name not in written:
            rows = layer.recorded.recording.tensors[name].reshape(tensor.rows, tensor.elements)
            image = pack(spec.activations, rows, tensor.line, tensor.start, tensor.limit)
            activations |= {word[:3]: word[3] for word in image.writes()}
    tensor = result_of(layer)
    lines = tensor.rows * -(-tensor.elements // spec.activations.window)
    unload = words_of_lines(spec.activations, tensor.line, lines, tensor.start)
    return MachineCase(
        layer.descriptors, {"activations": activations}, {"activations": unload}, layer.memory())


def result_of(layer: LayerProgram) -> Tensor:
    """Where the last operation's result lies."""
    return layer.placement.tensors[layer.plans[-1].task.label]


def layer_differences(layer: LayerProgram, found: MachineResult) -> list[str]:
    """Say what is not as it must be: status, the layer's result, cycles of a step."""
    if found.status != "done":
        return [f"status {found.status} after {found.cycles} cycles"]
    said = []
    spec, tensor = AcceleratorSpec.of(layer.plans[0].design).activations, result_of(layer)
    expected = layer.recorded.recording.tensors[layer.plans[-1].task.label]
    rows = read_rows(
        spec, found.unloads["activations"], tensor.line, (tensor.rows, tensor.elements))
    wrong = np.argwhere(rows != expected.reshape(rows.shape)).tolist()
    if wrong:
        said.append(f"{len(wrong)} of {rows.size} results differ, first {wrong[0]}")
    steps = layer.steps()
    if len(steps) != len(found.step_cycles):
        said.append(f"{len(found.step_cycles)} steps, not {len(steps)}")
    for step, cycles in zip(steps, found.step_cycles, strict=False):
        if step.total != cycles:
            said.append(f"step {step.number} of {step.operation} takes {cycles} cycles, "
                        f"not {step.total}: {step.cycles}")
    return said
