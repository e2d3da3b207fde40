"""One layer of a model as a program for an accelerator that holds all its activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor, MainMemory
from hwgen.units.accelerator.spec import AcceleratorSpec
from model.recording import RecordedProduct, RecordedRows
from sim.assembly import program
from sim.homes import Constants
from sim.main_memory import main_memory, weight_images
from sim.masks import RecordedMasks
from sim.placement import Placement, place
from sim.reference import StepTime, walk_program
from sim.schedule import NO_IMAGE, Plan, Program, schedule
from sim.workload import Workload


@dataclass(frozen=True)
class LayerProgram:
    """What runs one layer.

    Parameters
    ----------
    workload, recorded : the model at work, and its integers
    plans : the layer's operations
    placement : where their tensors lie
    descriptors : what the sequencer takes
    """

    workload: Workload
    recorded: RecordedMasks
    plans: Sequence[Plan]
    placement: Placement
    descriptors: Sequence[Descriptor]

    def operands(self, plan: Plan) -> RecordedProduct | RecordedRows:
        """Operands and constants of one of the operations."""
        operation = plan.task.operation
        recorded = self.recorded
        is_product = operation.kind == "product"
        return recorded.product(operation) if is_product else recorded.rows(operation)

    def memory(self) -> MainMemory:
        """Main memory with the layer's weights.

        Raises
        ------
        ValueError
            If a weight is less sparse than it is declared.
        """
        design = self.plans[0].design
        spec = AcceleratorSpec.of(design).weights
        weights = self.placement.weights
        return main_memory(design, (
            weight_images(spec, plan, self.operands(plan), weights[plan.task.label])
            for plan in self.plans if plan.task.label in weights))

    def steps(self) -> list[StepTime]:
        """Steps as the reference counts them, from the copy of the first operation's weight on."""
        plans = tuple(self.plans)
        walked = walk_program(
            plans[0].design, Program(plans[0].image, plans), self.workload, self.recorded,
            keep_steps=True)
        return walked.steps if plans[0].image != NO_IMAGE else walked.steps[1:]


def layer_program(
    design: AcceleratorDesign, workload: Workload, recorded: RecordedMasks, layer: int
) -> LayerProgram:
    """Make the program of one layer, whose input is in the activation buffer when it starts.

    Parameters
    ----------
    design : what runs it; its activation buffer must hold what lives at one time, and its weight
        buffer two weights or, of one that is larger, two blocks in a half
    workload, recorded : the model at work, and its integers
    layer : index of the layer

    Raises
    ------
    ValueError
        If a tensor does not fit, the model has no such layer, an operation has no RTL, or
        sequences have different lengths.
    """
    plans = [
        plan for plan in schedule(design, workload).plans if plan.task.operation.layer == layer]
    if not plans:
        raise ValueError(f"layer must be below {len(workload.model.layers)}, not {layer}")
    plans[-1] = replace(plans[-1], load=NO_IMAGE)
    placement = place(plans, workload)
    made = LayerProgram(workload, recorded, plans, placement, ())
    length = workload.sequence_length
    constants = {plan.task.label: Constants.of(made.operands(plan), length) for plan in plans}
    return replace(made, descriptors=program(plans, placement.homes, constants))
