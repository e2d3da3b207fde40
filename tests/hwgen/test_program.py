"""Jobs survive JSON."""

import json

import numpy as np

from hwgen.program import Job


def test_a_job_survives_json() -> None:
    job = Job(
        "mac_lane",
        "edge",
        {"left": np.asarray([[1, -2]]), "rows": [[1], [2, 3]], "shift": np.int64(4)},
        {"o": -16},
        {"left": [1, 2]},
        12,
    )
    back = Job.from_json(json.loads(json.dumps(job.to_json())))
    assert np.array_equal(back.operands["left"], job.operands["left"])
    assert back.operands["rows"] == [[1], [2, 3]]
    assert (back.operands["shift"], back.exponents, back.shapes, back.cycles) == (
        4,
        {"o": -16},
        {"left": [1, 2]},
        12,
    )
    assert job.with_cycles(13).cycles == 13
