"""A layer of attention on a real GPU: what it equals, and how many kernels it launches."""

import pytest
import torch
from torch import nn

import qontext as qx
from qontext.dtypes import from_torch, relative_rms

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


class SelfAttention(nn.Module):
    """The layer of the seed's notebook: one head, one projection, masked_fill with -1e3."""

    width = 24

    def __init__(self):
        super().__init__()
        self.qkv_proj = nn.Linear(self.width, 3 * self.width)
        self.out_proj = nn.Linear(self.width, self.width)

    def forward(self, x, mask):
        q, k, v = self.qkv_proj(x).chunk(3, dim=-1)
        score = torch.matmul(q, k.transpose(-2, -1)) / self.width**0.5
        score = score.masked_fill(mask == 0, -1e3)
        return self.out_proj(torch.matmul(score.softmax(dim=-1), v))


class Heads(SelfAttention):
    """The same with twelve heads."""

    width = 768

    def forward(self, x, mask):
        q, k, v = (t.unflatten(-1, (12, -1)).transpose(1, 2) for t in self.qkv_proj(x).chunk(3, dim=-1))
        score = torch.matmul(q, k.transpose(-2, -1)) / 8.0
        score = score.masked_fill(mask[:, None] == 0, -1e3)
        return self.out_proj(torch.matmul(score.softmax(dim=-1), v).transpose(1, 2).flatten(2))


def kernels_of(call):
    """Names of the kernels that a call launches, copies left out."""
    for _ in range(3):
        call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    found = [e.name for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return [name for name in found if not name.startswith(("Memcpy", "Memset"))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (SelfAttention, torch.float16),
        (Heads, torch.float16),
        (Heads, torch.float32),
        (SelfAttention, torch.float32),
    ],
)
def test_a_masked_layer_runs_in_four_kernels_at_most(layer, dtype):
    torch.manual_seed(0)
    module = layer().to(dtype).eval()
    x, mask = torch.randn(4, 128, layer.width).to(dtype), torch.rand(4, 128, 128) > 0.3
    engine = qx.build(qx.import_model(module, example_inputs={"x": x, "mask": mask}), device="cuda", tune=False)
    inputs = {"x": x.cuda(), "mask": mask.cuda()}
    with torch.no_grad():
        want = module.double()(x.double(), mask)
    (got,) = engine.run(inputs).values()
    assert relative_rms(got.cpu(), want) < 2 * from_torch(dtype).tolerance
    names = kernels_of(lambda: engine.run(inputs))
    assert len(engine.compiled.programs["encode"].steps) == 3
    assert 3 <= len(names) <= 4, names
