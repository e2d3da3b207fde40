"""One layer of a model as a program for an accelerator whose buffers hold all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor
from model.recording import RecordedProduct, RecordedRows
from sim.assembly import program
from sim.homes import Constants
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

    def steps(self) -> list[StepTime]:
        """Steps as the reference counts them, from the first operation's configuration on."""
        plans = tuple(self.plans)
        walked = walk_program(
            plans[0].design, Program(NO_IMAGE, plans), self.workload, self.recorded,
            keep_steps=True)
        return walked.steps[1:]


def layer_program(
    design: AcceleratorDesign, workload: Workload, recorded: RecordedMasks, layer: int
) -> LayerProgram:
    """Make the program of one layer, whose input and weights are in the buffers when it starts.

    Parameters
    ----------
    design : what runs it; its buffers must hold all weights of the layer at once
    workload, recorded : the model at work, and its integers
    layer : index of the layer

    Raises
    ------
    ValueError
        If a tensor does not fit, the model has no such layer, an operation has no RTL, or
        sequences have different lengths.
    """
    plans = [
        replace(plan, load=NO_IMAGE) for plan in schedule(design, workload).plans
        if plan.task.operation.layer == layer
    ]
    if not plans:
        raise ValueError(f"layer must be below {len(workload.model.layers)}, not {layer}")
    placement = place(plans, workload)
    made = LayerProgram(workload, recorded, plans, placement, ())
    length = workload.sequence_length
    constants = {plan.task.label: Constants.of(made.operands(plan), length) for plan in plans}
    return replace(made, descriptors=program(plans, placement.homes, constants))
