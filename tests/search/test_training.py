"""What a training that fails leaves behind."""

import pytest

from search.training import _attempt


@pytest.mark.parametrize(
    "reason",
    [
        OSError(28, "No space left on device"),
        # What safetensors and PyTorch raise where they find no space.
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail] . write failed, no space left on device"),
    ],
)
def test_a_full_disk_is_never_recorded_as_a_failed_training(reason):
    def work(trainer, job):
        raise reason

    with pytest.raises(OSError, match="No space left") as raised:
        _attempt(work, None, None)
    assert raised.value.errno == 28


def test_anything_else_is_recorded():
    outcome = _attempt(lambda trainer, job: 1 / 0, None, None)
    assert outcome.result is None and outcome.error == "ZeroDivisionError: division by zero"
