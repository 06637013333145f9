"""Where fp8 engines of benches of accuracy run: on the GPU, or by the references of the operators without one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from qontext.builder import engine_file


@contextmanager
def fp8_somewhere() -> Iterator[str]:
    """Lets `build(device="cuda")` work inside; gives in words by what fp8 is computed."""
    if torch.cuda.is_available():
        yield f"the kernels of {torch.cuda.get_device_name()}"
        return
    import pytest

    sys.path.append(str(Path(__file__).parents[1] / "tests" / "engine"))
    from gpu_fake import FAKE, fake_gpu

    with pytest.MonkeyPatch.context() as patch:
        fake_gpu(patch)
        patch.setattr(engine_file, "device_of", lambda name: FAKE)
        yield "the references of the operators"
