"""Least bytes and operations of an attention."""

from ..call import Call, Cost
from ..kernel_checks import operand_bytes


def attention_cost(call: Call, batch: int, tokens: int, kv_tokens: int, heads: int, sizes: tuple[int, int]) -> Cost:
    """Both products at two operations a multiply-add, over every pair of a query and a key of its sequence.

    Packed sequences have unknown lengths: equal ones make the fewest pairs, tokens * kv_tokens / batch.
    Half the pairs count when the kind is "causal".

    Args:
        batch: sequences.
        tokens, kv_tokens: query and key rows of all sequences together, padding included.
        heads: query heads.
        sizes: head size of query and key, and of value.
    """
    pairs = tokens * kv_tokens / max(batch, 1)
    if call.attributes["kind"] == "causal":
        pairs /= 2
    return Cost(operand_bytes(call), 2.0 * heads * sum(sizes) * pairs)
