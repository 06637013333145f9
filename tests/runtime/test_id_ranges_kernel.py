"""The kernel that looks for ids outside a table, through Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel is compiled here, see tests/engine")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("at", "value"), [(0, -1), (4100, 100), (4999, 101), (None, 0)])
def test_one_bad_id_anywhere_is_found(dtype, at, value):
    from qontext.runtime.id_ranges_kernel import outside

    ids = torch.randint(0, 100, (5000,), dtype=dtype)
    beyond = torch.cat([ids, torch.full((4096,), -7, dtype=dtype)])  # what lies behind is not looked at
    if at is not None:
        beyond[at] = value
    found = torch.zeros(3, dtype=torch.int32)
    outside[(2,)](beyond, found, 1, 5000, 100, 4096)
    assert found.tolist() == [0, int(at is not None), 0]
