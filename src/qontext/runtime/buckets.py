"""Sizes rounded up, so that few CUDA graphs serve all batches.

Tokens are rounded to a sixteenth of the power of two below them (at most 6 % of work wasted, 3 % on average) and never
finer than 32; sequences to a power of two, since empty ones cost next to nothing; the longest sequence to the tile
heights of attention kernels. Beyond `LARGEST_ROUNDED` tokens the device is busy long enough to hide the launches, and
rounding would only cost: such a batch is replayed when it fills its bucket exactly, and launched step by step if not.
"""

from dataclasses import dataclass

LARGEST_ROUNDED = 16_384
_FINEST = 32


@dataclass(frozen=True)
class Bucket:
    """What a graph was captured for: at most so many tokens in so many sequences, none longer than `length`."""

    tokens: int
    sequences: int
    length: int

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.sequences} sequences of at most {self.length}"


def bucket_of(tokens: int, sequences: int, longest: int) -> Bucket | None:
    """The bucket of a packed batch; None when it is better launched step by step, or empty."""
    if tokens < 1 or sequences < 1:
        return None
    rounded = round_tokens(tokens)
    if tokens > LARGEST_ROUNDED and rounded != tokens:
        return None
    return Bucket(rounded, power_of_two(sequences), round_length(longest))


def round_tokens(count: int) -> int:
    """The number of tokens rounded up to what a graph is captured for."""
    return _up(count, max(_FINEST, 1 << max(count.bit_length() - 5, 0)))


def round_length(longest: int) -> int:
    """The longest sequence rounded up: 64, 128, then by 128 to 512, then by 512."""
    if longest <= 128:
        return 64 if longest <= 64 else 128
    return _up(longest, 128 if longest <= 512 else 512)


def round_rows(count: int) -> int:
    """The sequences of a step of generation rounded up: to a power of two, from 64 on to an eighth of it."""
    return _up(count, max(power_of_two(count) // 8, 1)) if count > 64 else power_of_two(count)


def power_of_two(count: int) -> int:
    """The least power of two that is not smaller, at least 1."""
    return 1 << max(count - 1, 0).bit_length()


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
