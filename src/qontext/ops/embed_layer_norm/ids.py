"""Bounds of ids: nothing outside a table is ever read."""

import torch

from ...errors import InputError

_ADVICE = "check that the tokenizer and the model belong together"


def check_ids(name: str, ids: torch.Tensor, table: str, rows: int, advice: str = _ADVICE) -> None:
    """Raises InputError naming the first id outside `0 .. rows - 1`, where it stands and what is allowed."""
    if ids.numel() == 0 or ids.device.type == "meta":
        return
    low, high = torch.aminmax(ids)
    if int(low) < 0 or int(high) >= rows:
        raise _bad_id(name, ids, table, rows, advice)


def _bad_id(name: str, ids: torch.Tensor, table: str, rows: int, advice: str) -> InputError:
    """The error for ids of which at least one lies outside the table."""
    wrong = ((ids < 0) | (ids >= rows)).nonzero()
    place = wrong[0].tolist()
    more = f" ({len(wrong)} ids are out of range)" if len(wrong) > 1 else ""
    found = f"{name}{place} is {int(ids[tuple(place)])}, allowed are 0 to {rows - 1}"
    return InputError(f"{found}: {table!r} has {rows} rows{more}; {advice}")


def too_long(length: int, offset: int, rows: int) -> InputError:
    """The error for a sequence that needs positions beyond the table."""
    return InputError(
        f"the sequences are {length} tokens long, allowed are at most {rows - offset}: 'position_embedding' has {rows} "
        f"rows and positions start at {offset}; shorten or split the input"
    )


def numbered_from_padding(ids: torch.Tensor, padding_idx: int) -> torch.Tensor:
    """RoBERTa's positions: padding stays at `padding_idx`, other tokens count up from `padding_idx + 1`."""
    real = (ids != padding_idx).to(torch.int64)
    return real.cumsum(-1) * real + padding_idx
