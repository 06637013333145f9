"""What the conformance cases do not reach: wide rows, ids outside their tables, token indices filled up to a length.

Without a GPU the kernels run through Triton's interpreter.
"""

import pytest
import torch
import torch.nn.functional as F

from qontext.dtypes import by_name, relative_rms
from qontext.ops.call import Device
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of

pytest.importorskip("triton")

HERE = device_of("cuda") if torch.cuda.is_available() else Device("cuda", frozenset({"sm_90"}), "interpreter", "cpu")
FP32 = by_name("float32").tolerance


def tensor(data, **kwargs):
    return torch.as_tensor(data, device=HERE.torch, **kwargs)


def normal(*shape, mean=0.0):
    return tensor(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) + mean)


def run(op_name, kernel_name, inputs, outputs=(), out=None, **attributes):
    """Runs one kernel; fresh outputs are NaN where the call says their shapes."""
    op = BY_NAME[op_name]
    inputs = [*inputs, *[None] * (len(op.inputs) - len(inputs))]
    call = call_of(op, inputs, attributes, op.wanted(outputs), HERE)
    (kernel,) = (k for k in op.kernels if k.name == kernel_name)
    assert kernel.supports(call) is None
    if out is None and kernel.writes_out:
        out = [
            None if o is None else torch.full(o.shape, float("nan"), dtype=o.type.torch, device=HERE.torch)
            for o in call.outputs
        ]
    result = kernel.bind(call)(inputs, out)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("width", [16385, 20000])
def test_rows_wider_than_a_tile(width):
    x, skip, weight, bias, x_bias = normal(3, width, mean=2.0), normal(3, width), *(normal(width) for _ in range(3))
    total = x + skip + x_bias
    want = F.layer_norm(total.double(), (width,), weight.double(), bias.double(), 1e-5)
    y, s = run("SkipLayerNorm", "triton.skip_layer_norm", [x, skip, weight, bias, x_bias], ("y", "sum"), epsilon=1e-5)
    assert relative_rms(y, want) <= FP32
    assert relative_rms(s, total) <= FP32
    (y,) = run("RMSNorm", "triton.rms_norm", [x, weight])
    assert relative_rms(y, F.rms_norm(x.double(), (width,), weight.double(), 1e-6)) <= FP32


def test_wide_rows_written_over_their_input():
    x, weight = normal(2, 20000), normal(20000)
    want = F.layer_norm(x.double(), (20000,), weight.double(), None, 1e-5)
    run("LayerNorm", "triton.layer_norm", [x, weight], out=[x])
    assert relative_rms(x, want) <= FP32


def test_a_group_larger_than_a_piece():
    x, weight, bias = normal(1, 2, 30, 301, mean=3.0), normal(2), normal(2)
    want = F.group_norm(x.double(), 1, weight.double(), bias.double())
    (y,) = run("GroupNorm", "triton.group_norm", [x, weight, bias], num_groups=1)
    assert relative_rms(y, want) <= FP32


@pytest.mark.parametrize("bad", [-1, 7, 1 << 33])
@pytest.mark.parametrize("which", [0, 2, 4])
def test_ids_outside_a_table_give_nan_in_their_row_alone(which, bad):
    ids = [tensor([[1, 2, 3], [4, 5, 6]]), tensor([[0, 1, 2], [0, 1, 2]]), tensor([[0, 0, 1], [0, 1, 1]])]
    tables = [normal(7, 12), normal(7, 12), normal(2, 12)]
    inputs = [ids[0], tables[0], ids[1], tables[1], ids[2], tables[2], normal(12), normal(12)]
    inputs[which][1, 1] = bad
    (y, *_) = run("EmbedLayerNorm", "triton.embed_layer_norm", inputs)
    assert bool(y[1, 1].isnan().all())
    y[1, 1] = 0
    assert bool(y.isfinite().all())


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("bad", [-1, 5, 1 << 40])
def test_positions_outside_the_rotary_table_give_nan(pairing, bad):
    x, cos, sin, places = normal(3, 16), normal(5, 4), normal(5, 4), tensor([0, bad, 4])
    (y,) = run(
        "RotaryEmbedding", "triton.rotary_embedding", [x, cos, sin, places],
        layout="T (N D)", num_heads=2, pairing=pairing,
    )  # fmt: skip
    assert bool(y[1].isnan().all())
    assert bool(y[[0, 2]].isfinite().all())


@pytest.mark.parametrize("capacity", [9, 12, 40])
def test_token_index_of_a_fixed_length(capacity):
    """Places beyond the tokens are no places of the batch: packing gives zeros for them, unpacking leaves them out."""
    mask = tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]])
    (tokens,) = mask.flatten().nonzero(as_tuple=True)
    out = [tensor([-7] * capacity), tensor([-7] * 5, dtype=torch.int32), tensor(-7, dtype=torch.int32)]
    run("PackIndex", "triton.pack_index_static", [mask], ("token_index", "cu_seqlens", "max_seqlen"), out=out)
    assert out[0][:9].tolist() == tokens.tolist()
    assert out[0][9:].tolist() == [mask.numel()] * (capacity - 9)
    assert out[1].tolist() == [0, 3, 3, 8, 9]
    assert int(out[2]) == 5
    x = normal(4, 5, 6)
    (packed,) = run("PackTokens", "triton.pack_tokens", [x, out[0]])
    assert torch.equal(packed[:9], x.flatten(0, 1)[tokens])
    assert not packed[9:].any()
    packed[9:] = 5.0
    (padded,) = run("UnpackTokens", "triton.unpack_tokens", [packed, out[0], mask])
    assert torch.equal(padded, x * (mask != 0).unsqueeze(-1))


def test_long_rows_of_tokens_are_numbered_block_by_block():
    mask = tensor((torch.arange(3 * 2500) % 3 > 0).view(3, 2500))
    index, bounds, longest = run("PackIndex", "triton.pack_index", [mask], ("token_index", "cu_seqlens", "max_seqlen"))
    assert torch.equal(index, mask.flatten().nonzero().flatten())
    assert bounds.tolist() == [0, *mask.sum(1).cumsum(0).tolist()]
    assert int(longest) == int(mask.sum(1).max())
    assert longest.device.type == "cpu"
