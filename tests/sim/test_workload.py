"""Workloads: densities in every form, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign, DesignBatch
from model.space import TransformerDesign, operations
from model.trace import SparsityTrace
from sim import Workload
from sim.workload import Task, compressed_bits

TINY = TransformerDesign.load("bert-tiny")


def tasks(workload: Workload) -> dict[str, Task]:
    return {task.label: task for task in workload.tasks}


def trace(**changes: Any) -> SparsityTrace:
    """A trace in which every operand has a density of its own: its number over a thousand."""
    records = []
    for operation in operations(TINY):
        roles = [role.value for role in operation.roles] + ["OUTPUT"]
        for role in roles:
            records.append(
                {
                    "layer": operation.layer,
                    "operation": operation.name,
                    "role": role,
                    "elements": 1000,
                    "nonzeros": len(records) + 1,
                    "zeros_before": 0,
                    "mean": 0.5,
                    "quantiles": [0.5] * 7,
                }
            )
    return SparsityTrace.load(
        {
            "design_hash": TINY.design_hash,
            "weights_hash": "w",
            "activation_threshold": 0.1,
            "gradient_threshold": 0.0,
            "task": "t",
            "split": "train",
            "stage": "inference",
            "sequence_length": 64,
            "batch": 8,
            "records": records,
            **changes,
        }
    )


def test_one_number_holds_everywhere_but_in_embedding_rows() -> None:
    found = tasks(Workload("bert-tiny", 64, 0.25))
    assert found["embedding"].operation.reads == ("word_rows", "position_rows")
    assert found["0.query"].read_densities == (0.25,) and found["0.query"].weight_density == 0.25
    assert (
        found["0.score"].read_densities == (0.25, 0.25) and found["0.score"].right_density == 0.25
    )
    assert math.isnan(found["0.score"].weight_density)
    assert all(task.write_density == 0.25 for task in found.values())


def test_densities_by_role() -> None:
    by_role = {"INPUT": 0.1, "WEIGHT": 1.0, "LEFT": 0.3, "RIGHT": 0.4}
    found = tasks(Workload(TINY, 64, by_role))
    assert found["0.score"].read_densities == (0.3, 0.4)
    assert found["0.query"].write_density == 0.3, "the score reads it on the left"
    assert found["0.key"].write_density == 0.4
    assert found["0.attention_softmax"].write_density == 0.3
    assert found["0.attention_softmax"].read_densities == (0.1,), "no product reads scores: OUTPUT"
    assert found["0.attention_norm"].read_densities == (0.1, 0.1)
    assert (found["0.query"].read_densities, found["0.query"].right_density) == ((0.1,), 1.0)
    named = tasks(Workload(TINY, 64, {**by_role, "OUTPUT": 0.7}))
    assert named["0.score"].write_density == named["0.attention_softmax"].read_densities[0] == 0.7
    assert named["0.attention_norm"].read_densities == (0.7, 0.1)
    assert named["classifier"].write_density == 0.7


def test_densities_of_a_trace() -> None:
    recorded = trace()
    found = tasks(Workload(TINY, 64, recorded))

    def density(layer: int | None, name: str, role: str) -> float:
        return recorded.density(layer, name, role)

    score = found["1.score"]
    assert score.read_densities == (density(1, "score", "LEFT"), density(1, "score", "RIGHT"))
    assert score.write_density == density(1, "score", "OUTPUT")
    assert found["1.attention_softmax"].read_densities == (density(1, "score", "OUTPUT"),)
    assert found["0.value"].weight_density == density(0, "value", "WEIGHT")
    assert found["0.attention_norm"].read_densities == (
        density(0, "attention_output", "OUTPUT"),
        density(None, "embedding", "OUTPUT"),
    )
    assert found["embedding"].read_densities == (1.0, 1.0)
    assert len({task.write_density for task in found.values()}) == len(found)


def test_a_trace_of_another_model_is_refused_and_of_another_length_warned_of() -> None:
    with pytest.raises(ValueError, match="another model: its design_hash is"):
        Workload("bert-mini", 64, trace())
    with pytest.warns(UserWarning, match="recorded at sequence length 64, the workload has 32"):
        Workload(TINY, 32, trace())
    with pytest.raises(ValueError, match="no record of query of layer 0"):
        Workload(
            TINY,
            64,
            trace(
                records=[
                    record.model_dump() for record in trace().records if record.operation != "query"
                ]
            ),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"densities": math.nan}, "density densities must be from 0 to 1, not nan"),
        ({"densities": 1.01}, "must be from 0 to 1, not 1.01"),
        ({"densities": -0.1}, "must be from 0 to 1, not -0.1"),
        ({"densities": "0.5"}, "must be a number from 0 to 1, not '0.5'"),
        ({"densities": True}, "must be a number"),
        (
            {"densities": {"INPUT": 0.5, "WEIGHT": math.inf, "LEFT": 0.5, "RIGHT": 0.5}},
            "density WEIGHT must be from 0 to 1, not inf",
        ),
        ({"densities": {"INPUT": 0.5, "WEIGHTS": 1.0}}, "unknown role 'WEIGHTS'"),
        ({"densities": {"INPUT": 0.5}}, "must give role WEIGHT; got INPUT"),
        ({"mode": "training"}, "mode must be \"inference\", not 'training'"),
        ({"sequence_length": 513}, "max_positions = 512, not 513"),
        ({"sequence_length": 0}, "sequence_length must be a whole number of at least 1, not 0"),
        ({"batch_size": 2.0}, "batch_size must be a whole number"),
        ({"model": "bert-tini"}, "did you mean bert-tiny"),
        (
            {"model": {"l": 1, "o": [["sa_sdp_64", "l_dft_64"]], "h": [128], "f": [[256]]}},
            "l_dft in layer 0 is not modelled yet; use sa_sdp",
        ),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload(**{"model": TINY, "sequence_length": 64, "densities": 0.5, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nonlinearity": "relu"}, "activation, 'gelu', not 'relu' .design 1 of 2."),
        (
            {"max_sequence_length": 32},
            "max_sequence_length must be at least 64 .* not 32 .design 1",
        ),
        ({"k_max": 256}, "k_max must be at least 512 .* not 256"),
    ],
)
def test_refuses_designs_that_cannot_run_it(changes: dict[str, Any], message: str) -> None:
    edge = AcceleratorDesign.load("edge")
    designs = DesignBatch.of([edge, edge.model_copy(update=changes)])
    with pytest.raises(ValueError, match=message):
        Workload(TINY, 64, 0.5).check(designs)


def test_batch_is_the_designs_or_the_workloads() -> None:
    designs = DesignBatch.of(["edge", "server"])
    assert Workload(TINY, 64, 0.5).batch(designs).tolist() == [4, 32]
    assert Workload(TINY, 64, 0.5, batch_size=7).batch(designs).tolist() == [7, 7]


def test_compressed_bits_round_up_and_agree_for_arrays() -> None:
    elements = np.arange(1, 500)
    found = compressed_bits(0.37, elements, 20)
    assert found.tolist() == [compressed_bits(0.37, int(n), 20) for n in elements]
    assert compressed_bits(0.5, 3, 1) == 2 and compressed_bits(0.0, 9, 20) == 0


def test_a_tensor_lives_until_its_last_reader() -> None:
    workload = Workload(TINY, 64, 0.5)
    labels = [task.label for task in workload.tasks]
    last = {name: labels[index] for name, index in workload.last_read.items()}
    assert (
        last["embedding"] == "0.attention_norm"
        and last["0.attention_norm"] == "0.feed_forward_norm"
    )
    assert last["0.value"] == "0.context" and last["pooler"] == "pooler_tanh"
    assert "classifier" not in last and "word_rows" not in last
