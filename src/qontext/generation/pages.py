"""The page allocator of paged caches, in plain Python: it hands out numbers and never touches a tensor.

A sequence holds a list of pages; page i holds its tokens i * tokens_per_page and on. Pages are counted: a fork (a beam,
a shared prompt) holds the same pages as its parent, and a page that several sequences hold is copied before one of them
writes into it (`Copy` says which; whoever owns the tensors does it, in order). When pages run out, a call gives
`Exhausted` and changes nothing: being full is a state to plan with, not an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import ArgumentError


@dataclass(frozen=True)
class Copy:
    """Page `source` is to be copied to page `target` before anything is written."""

    source: int
    target: int


@dataclass(frozen=True)
class Exhausted:
    """There were not enough free pages; nothing was changed."""

    wanted: int
    free: int

    def __str__(self) -> str:
        return f"{self.wanted} pages were wanted and {self.free} are free; end a sequence, or build with more pages"


@dataclass
class _Sequence:
    pages: list[int] = field(default_factory=list)
    tokens: int = 0


class Pages:
    """Who holds which page.

    Args:
        count: pages of the pool.
        tokens_per_page: tokens of a page.
    """

    def __init__(self, count: int, tokens_per_page: int):
        problems = [
            f"{name} is {value}, it has to be at least 1"
            for name, value in (("the number of pages", count), ("tokens_per_page", tokens_per_page))
            if value < 1
        ]
        if problems:
            raise ArgumentError("; ".join(problems))
        self.count = count
        self.tokens_per_page = tokens_per_page
        self._free = list(range(count - 1, -1, -1))  # the lowest number is handed out first
        self._holders = [0] * count
        self._sequences: dict[int, _Sequence] = {}
        self._next = 0

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def sequences(self) -> int:
        """Sequences that live."""
        return len(self._sequences)

    def pages_for(self, tokens: int) -> int:
        """Pages that a sequence of so many tokens needs."""
        return -(-tokens // self.tokens_per_page)

    def open(self) -> int:
        """A new sequence without tokens; its number."""
        number = self._next
        self._next += 1
        self._sequences[number] = _Sequence()
        return number

    def tokens(self, sequence: int) -> int:
        """Tokens that a sequence has room for and counts."""
        return self._of(sequence).tokens

    def table(self, sequence: int) -> tuple[int, ...]:
        """The pages of a sequence, in the order of its tokens."""
        return tuple(self._of(sequence).pages)

    def extend(self, sequence: int, tokens: int) -> "list[Copy] | Exhausted":
        """Makes room for more tokens at the end of a sequence, all or nothing.

        Returns the pages to be copied first: the last one, when it is shared and has room that will be written.
        """
        if tokens < 0:
            raise ArgumentError(f"extend: {tokens} tokens were asked for; a sequence grows by 0 or more")
        held = self._of(sequence)
        fresh = self.pages_for(held.tokens + tokens) - len(held.pages)
        partly = held.tokens % self.tokens_per_page
        shared = bool(tokens and partly and self._holders[held.pages[-1]] > 1)
        if fresh + shared > len(self._free):
            return Exhausted(fresh + shared, len(self._free))
        copies = [self._own(held, len(held.pages) - 1)] if shared else []
        held.pages += [self._take() for _ in range(fresh)]
        held.tokens += tokens
        return copies

    def rewrite(self, sequence: int, first_token: int, tokens: int) -> "list[Copy] | Exhausted":
        """Makes tokens that are there writable again (a cyclic cache, a rejected draft): shared pages are copied."""
        held = self._of(sequence)
        if first_token < 0 or tokens < 0 or first_token + tokens > held.tokens:
            raise ArgumentError(
                f"rewrite: tokens {first_token} to {first_token + tokens} of a sequence of {held.tokens}"
            )
        first, end = first_token // self.tokens_per_page, self.pages_for(first_token + tokens)
        shared = [i for i in range(first, end if tokens else first) if self._holders[held.pages[i]] > 1]
        if len(shared) > len(self._free):
            return Exhausted(len(shared), len(self._free))
        return [self._own(held, i) for i in shared]

    def fork(self, sequence: int, tokens: int | None = None) -> int:
        """A new sequence that shares the first `tokens` tokens of another (all when None); takes no page."""
        held = self._of(sequence)
        count = held.tokens if tokens is None else tokens
        if not 0 <= count <= held.tokens:
            raise ArgumentError(f"fork: {count} tokens of a sequence of {held.tokens}")
        number = self.open()
        child = self._sequences[number]
        child.pages = held.pages[: self.pages_for(count)]
        child.tokens = count
        for page in child.pages:
            self._holders[page] += 1
        return number

    def shorten(self, sequence: int, tokens: int) -> None:
        """Cuts a sequence to its first `tokens` tokens; pages that it no longer needs are let go."""
        held = self._of(sequence)
        if not 0 <= tokens <= held.tokens:
            raise ArgumentError(f"shorten: {tokens} tokens of a sequence of {held.tokens}")
        keep = self.pages_for(tokens)
        self._let_go(held.pages[keep:])
        del held.pages[keep:]
        held.tokens = tokens

    def close(self, sequence: int) -> None:
        """Ends a sequence."""
        self._let_go(self._of(sequence).pages)
        del self._sequences[sequence]

    def problems(self) -> list[str]:
        """The integrity check: sentences about counts that do not add up; empty when all is well."""
        held = [0] * self.count
        found = []
        for number, sequence in self._sequences.items():
            if len(sequence.pages) != self.pages_for(sequence.tokens):
                found.append(f"sequence {number} has {len(sequence.pages)} pages for {sequence.tokens} tokens")
            if len(set(sequence.pages)) != len(sequence.pages):
                found.append(f"sequence {number} holds a page twice")
            for page in sequence.pages:
                held[page] += 1
        free = set(self._free)
        if len(free) != len(self._free):
            found.append("a page is free twice")
        for page in range(self.count):
            if held[page] != self._holders[page]:
                found.append(f"page {page} counts {self._holders[page]} holders, {held[page]} hold it")
            if (page in free) != (held[page] == 0):
                found.append(f"page {page} is {'free' if page in free else 'taken'} with {held[page]} holders")
        return found

    def _of(self, sequence: int) -> _Sequence:
        found = self._sequences.get(sequence)
        if found is None:
            raise ArgumentError(f"there is no sequence {sequence}; it was closed, or never opened")
        return found

    def _take(self) -> int:
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def _own(self, held: _Sequence, index: int) -> Copy:
        """Puts a page of its own in the place of a shared one."""
        source = held.pages[index]
        target = self._take()
        self._holders[source] -= 1
        held.pages[index] = target
        return Copy(source, target)

    def _let_go(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free.append(page)


def table_of(pages: Pages, sequences: Sequence[int], width: int) -> list[list[int]]:
    """The page tables of several sequences, filled with page 0 up to `width`.

    Raises ArgumentError for a sequence with more pages than that.
    """
    rows = [list(pages.table(s)) for s in sequences]
    longest = max((len(r) for r in rows), default=0)
    if longest > width:
        raise ArgumentError(f"a sequence has {longest} pages, the table has room for {width}")
    return [r + [0] * (width - len(r)) for r in rows]
