"""The page allocator: counts, copies before writes, exhaustion as a value, no leak over long random traces."""

import random

import pytest

from qontext.errors import ArgumentError
from qontext.generation.pages import Copy, Exhausted, Pages, table_of


def test_pages_follow_tokens():
    pages = Pages(8, 4)
    a = pages.open()
    assert pages.extend(a, 5) == []
    assert pages.table(a) == (0, 1)
    assert pages.extend(a, 3) == []
    assert pages.table(a) == (0, 1)
    assert pages.extend(a, 1) == []
    assert pages.table(a) == (0, 1, 2)
    pages.shorten(a, 4)
    assert pages.table(a) == (0,)
    assert pages.free == 7
    pages.close(a)
    assert pages.free == 8
    assert pages.problems() == []


def test_shared_page_is_copied_before_it_is_written():
    pages = Pages(8, 4)
    a = pages.open()
    pages.extend(a, 6)
    b = pages.fork(a)
    assert pages.free == 6
    assert pages.extend(b, 1) == [Copy(1, 2)]
    assert pages.table(a) == (0, 1)
    assert pages.table(b) == (0, 2)
    assert pages.extend(a, 1) == []  # nobody else holds its last page any more
    assert pages.rewrite(b, 0, 2) == [Copy(0, 3)]
    assert pages.problems() == []


def test_full_pages_are_shared_without_a_copy():
    pages = Pages(8, 4)
    a = pages.open()
    pages.extend(a, 8)
    b = pages.fork(a, 4)
    assert pages.table(b) == (0,)
    assert pages.extend(b, 2) == []
    assert pages.table(b) == (0, 2)


def test_exhaustion_is_a_value_and_changes_nothing():
    pages = Pages(3, 4)
    a = pages.open()
    pages.extend(a, 6)
    b = pages.fork(a)
    before = (pages.table(a), pages.table(b), pages.tokens(b), pages.free)
    full = pages.extend(b, 4)  # a copy of the last page and a new one
    assert full == Exhausted(2, 1)
    assert "2 pages were wanted and 1 are free" in str(full)
    assert (pages.table(a), pages.table(b), pages.tokens(b), pages.free) == before
    assert pages.problems() == []


def test_bad_calls_say_what_was_asked():
    with pytest.raises(ArgumentError, match="the number of pages is 0"):
        Pages(0, 4)
    pages = Pages(2, 4)
    a = pages.open()
    pages.extend(a, 3)
    with pytest.raises(ArgumentError, match="fork: 4 tokens of a sequence of 3"):
        pages.fork(a, 4)
    with pytest.raises(ArgumentError, match="shorten: 9 tokens of a sequence of 3"):
        pages.shorten(a, 9)
    with pytest.raises(ArgumentError, match="extend: -1 tokens"):
        pages.extend(a, -1)
    pages.close(a)
    with pytest.raises(ArgumentError, match="there is no sequence 0"):
        pages.close(a)


def test_tables_are_filled_up():
    pages = Pages(8, 4)
    a, b = pages.open(), pages.open()
    pages.extend(a, 5)
    pages.extend(b, 1)
    assert table_of(pages, [a, b], 3) == [[0, 1, 0], [2, 0, 0]]
    with pytest.raises(ArgumentError, match="2 pages, the table has room for 1"):
        table_of(pages, [a], 1)


@pytest.mark.parametrize("seed", range(3))
def test_random_traces_leave_no_leak_and_mix_no_tokens(seed):
    """10,000 operations beside a model that keeps every sequence's tokens by itself; pages hold what was written."""
    rng = random.Random(seed)
    pages = Pages(rng.randint(5, 60), rng.choice((1, 3, 16)))
    memory = [[None] * pages.tokens_per_page for _ in range(pages.count)]
    truth: dict[int, list[int]] = {}
    exhausted = 0

    def write(sequence, first, values):
        table = pages.table(sequence)
        for i, value in enumerate(values, first):
            memory[table[i // pages.tokens_per_page]][i % pages.tokens_per_page] = value

    def copy(copies):
        for c in copies:
            memory[c.target] = list(memory[c.source])

    for step in range(10_000):
        action = rng.random()
        if not truth or action < 0.1:
            truth[pages.open()] = []
            continue
        sequence = rng.choice(list(truth))
        if action < 0.55:
            values = [rng.random() for _ in range(rng.randint(0, 2 * pages.tokens_per_page))]
            found = pages.extend(sequence, len(values))
            if isinstance(found, Exhausted):
                exhausted += 1
            else:
                copy(found)
                write(sequence, len(truth[sequence]), values)
                truth[sequence] += values
        elif action < 0.7:
            cut = rng.choice((None, rng.randint(0, len(truth[sequence]))))
            truth[pages.fork(sequence, cut)] = truth[sequence][:cut]
        elif action < 0.78:
            cut = rng.randint(0, len(truth[sequence]))
            pages.shorten(sequence, cut)
            truth[sequence] = truth[sequence][:cut]
        elif action < 0.86:
            first = rng.randint(0, len(truth[sequence]))
            count = rng.randint(0, len(truth[sequence]) - first)
            found = pages.rewrite(sequence, first, count)
            if not isinstance(found, Exhausted):
                copy(found)
                values = [rng.random() for _ in range(count)]
                write(sequence, first, values)
                truth[sequence] = truth[sequence][:first] + values + truth[sequence][first + count :]
        else:
            pages.close(sequence)
            del truth[sequence]
        if step % 100 == 0:
            assert pages.problems() == []
            for number, tokens in truth.items():
                table, size = pages.table(number), pages.tokens_per_page
                assert [memory[table[i // size]][i % size] for i in range(len(tokens))] == tokens
    assert exhausted > 0
    for sequence in truth:
        pages.close(sequence)
    assert pages.free == pages.count
    assert pages.problems() == []
