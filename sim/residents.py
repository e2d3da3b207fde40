"""What the buffers hold while a program is made, for the walk over its steps."""

from __future__ import annotations

from hwgen.design import AcceleratorDesign
from sim.workload import Task, compressed_bits, stored_elements


class Residents:
    """Tensors in the activation and the mask buffer.

    `free_values` and `free_masks` are the bits that are left.
    """

    def __init__(self, design: AcceleratorDesign) -> None:
        """Nothing is there yet."""
        self.free_values = design.activation_buffer_kib * 1024 * 8
        self.free_masks = design.mask_buffer_kib * 1024 * 8 // 2
        self.resident: dict[str, bool] = {}
        self._held: dict[str, tuple[int, int]] = {}

    def place(self, name: str, values: int, masks: int) -> bool:
        """Make room for a tensor, and say whether there was any.

        Parameters
        ----------
        name : of the tensor
        values, masks : bits that it takes
        """
        fits = values <= self.free_values and masks <= self.free_masks
        self.resident[name] = fits
        if fits:
            self._held[name] = values, masks
            self.free_values -= values
            self.free_masks -= masks
        return fits

    def free(self, name: str) -> None:
        """Give a tensor's room back, if it had any."""
        values, masks = self._held.pop(name, (0, 0))
        self.free_values += values
        self.free_masks += masks


def whole_weight(design: AcceleratorDesign, task: Task) -> tuple[int, int, bool]:
    """Bits of an operation's weights, and whether they are prefetched.

    Parameters
    ----------
    design, task : whose weights

    Returns
    -------
    Bits of values with biases, or of γ and β; of masks; and whether lines of both fit their parts
    of the buffers.
    """
    operation = task.operation
    if operation.kind == "add_norm":
        assert isinstance(operation.inner, int)
        return 2 * operation.inner * design.bits, 2 * operation.inner, True
    if not operation.has_weight:
        return 0, 0, True
    assert isinstance(operation.inner, int) and isinstance(operation.outer, int)
    elements = operation.inner * operation.outer
    values = compressed_bits(task.weight_density, elements, design.bits)
    biases = operation.outer * (design.accumulator_bits - 1)
    stored = stored_elements(operation.outer, operation.inner, design.window)
    taken = compressed_bits(task.weight_density, stored, design.bits) + biases
    fits = (
        taken <= design.weight_buffer_kib * 1024 * 8 / 2
        and stored <= design.mask_buffer_kib * 1024 * 8 / 4
    )
    return values + biases, elements, fits
