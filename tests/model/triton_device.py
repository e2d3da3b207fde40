"""Where Triton's kernels run in tests: on a GPU, or with TRITON_INTERPRET=1 in its interpreter.

What imports this is skipped where triton is not installed.
"""

import os

import pytest
import torch

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU, or TRITON_INTERPRET=1"
    ),
]
needs_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
