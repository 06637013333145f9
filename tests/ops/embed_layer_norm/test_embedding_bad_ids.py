"""Ids outside their table: a clear error on every path, and nothing outside the table is read."""

import pytest
import torch

from qontext import native
from qontext.errors import InputError, ShapeError
from qontext.ops.declare import call_of
from qontext.ops.eager import reference_kernel
from qontext.ops.embed_layer_norm.op import OP

WORDS, PLACES, KINDS, WIDTH = 11, 6, 2, 8
# A GPU gives NaN for such rows and reads nothing outside; the engine checks ids where it waits anyway.
KERNELS = [*(k for k in OP.kernels if k.device == "cpu"), reference_kernel(OP)]
EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)


def inputs_of(batch=2, length=5, places=None):
    return {
        "input_ids": torch.zeros(batch, length, dtype=torch.int64),
        "word_embedding": torch.randn(WORDS, WIDTH),
        "position_ids": places,
        "position_embedding": torch.randn(PLACES, WIDTH),
        "token_type_ids": torch.zeros(batch, length, dtype=torch.int64),
        "token_type_embedding": torch.randn(KINDS, WIDTH),
        "weight": torch.ones(WIDTH),
        "bias": torch.zeros(WIDTH),
        "attention_mask": None,
    }


def run(kernel, given, **attributes):
    if kernel.name.startswith("native.") and not native.available():
        pytest.skip(native.status().reason)
    tensors = [given[p.name] for p in OP.inputs]
    call = call_of(OP, tensors, attributes, OP.wanted(()))
    out = None
    if kernel.writes_out:
        out = [None if o is None else torch.empty(o.shape) for o in call.outputs]
    return kernel.bind(call)(tensors, out)


@EVERY_KERNEL
@pytest.mark.parametrize("index", [torch.int64, torch.int32])
@pytest.mark.parametrize("bad", [-1, WORDS, 2**31 - 1, -(2**31)])
def test_bad_words_are_named(kernel, bad, index):
    given = inputs_of()
    given["input_ids"] = given["input_ids"].to(index)
    given["input_ids"][1, 2] = bad
    with pytest.raises(InputError, match=rf"input_ids\[1, 2\] is {bad}, allowed are 0 to 10: 'word_embedding' has 11"):
        run(kernel, given)


@EVERY_KERNEL
def test_the_first_of_several_bad_ids_is_named(kernel):
    given = inputs_of()
    given["input_ids"][0, 3] = 2**62
    given["input_ids"][1, 1] = -5
    with pytest.raises(InputError, match=rf"input_ids\[0, 3\] is {2**62}, .*2 ids are out of range"):
        run(kernel, given)


@EVERY_KERNEL
def test_bad_kinds_and_places_are_named(kernel):
    given = inputs_of()
    given["token_type_ids"][1, 4] = KINDS
    with pytest.raises(InputError, match=r"token_type_ids\[1, 4\] is 2, allowed are 0 to 1: 'token_type_embedding'"):
        run(kernel, given)
    for places in (torch.tensor([0, 1, 2, 3, PLACES]), torch.tensor([[0, 1, 2, 3, PLACES]])):
        with pytest.raises(InputError, match=r"position_ids\[.*4\] is 6, allowed are 0 to 5: 'position_embedding'"):
            run(kernel, inputs_of(places=places))


@EVERY_KERNEL
def test_sequences_beyond_the_position_table(kernel):
    run(kernel, inputs_of(length=PLACES))
    with pytest.raises(InputError, match="7 tokens long, allowed are at most 6"):
        run(kernel, inputs_of(length=PLACES + 1))
    with pytest.raises(InputError, match=r"5 tokens long, allowed are at most 4.*positions start at 2"):
        run(kernel, inputs_of(length=5), position_offset=2)
    # RoBERTa counts from padding_idx + 1, over the tokens that are not padding.
    given = inputs_of(length=5)
    given["input_ids"][:] = 3
    given["input_ids"][:, 4] = 1
    run(kernel, given, padding_idx=1)
    given["input_ids"][0, 4] = 3
    with pytest.raises(InputError, match=r"position_ids\[0, 4\] is 6, allowed are 0 to 5"):
        run(kernel, given, padding_idx=1)


def test_inputs_that_contradict_each_other():
    given = inputs_of()
    with pytest.raises(ShapeError, match="'token_type_ids' is given without 'token_type_embedding'"):
        OP(**{**given, "token_type_embedding": None})
    packed = {**given, "input_ids": torch.zeros(7, dtype=torch.int64), "token_type_ids": None}
    with pytest.raises(ShapeError, match=r"packed \[T\], so 'position_embedding' needs 'position_ids' \[T\]"):
        OP(**packed)
    with pytest.raises(ShapeError, match=r"input 'position_ids' has shape \[6\], 'input_ids' has \[7\]"):
        OP(**{**packed, "position_ids": torch.zeros(6, dtype=torch.int64)})
    with pytest.raises(ShapeError, match="'position_offset' is -1, expected 0 or more"):
        OP(**given, position_offset=-1)
