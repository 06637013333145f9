"""Beam search against transformers, over pages and contiguous caches; what it leaves behind."""

import decoders
import pytest
import torch

import qontext as qx
from qontext.errors import InputError
from qontext.generation.beam import Beams, Search
from qontext.generation.loop import Settings

PROMPTS = decoders.prompts(3, 11, 1, 7)


@pytest.fixture(scope="module", params=[pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def small(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = decoders.saved(getattr(decoders, request.param)(), folder)
    return model, qx.build(qx.import_model(folder), tune=False)


def by_transformers(model, prompt, beams, new_tokens, penalty, ends):
    """The best results, each with its score, the prompt taken off."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=new_tokens,
        length_penalty=penalty,
        eos_token_id=ends or None,
        pad_token_id=0,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    return out.sequences[:, len(prompt) :].tolist(), out.sequences_scores.tolist()


def cut(tokens, ends):
    """Up to the first end, which belongs to it."""
    at = [i for i, t in enumerate(tokens) if t in ends]
    return tokens[: at[0] + 1] if at else tokens


SLOW = pytest.mark.slow


@pytest.mark.parametrize("penalty", [1.0, pytest.param(0.0, marks=SLOW), pytest.param(2.0, marks=SLOW)])
@pytest.mark.parametrize("ended", [pytest.param(False, marks=SLOW), True], ids=["", "ends"])
@pytest.mark.parametrize("page", [0, 4, pytest.param(64, marks=SLOW)], ids=["contiguous", "pages_of_4", "pages_of_64"])
def test_results_equal_those_of_transformers(small, page, ended, penalty):
    """All results and their scores; four prompts of unequal lengths in one batch, each as if it were alone."""
    model, engine = small
    beams, new_tokens = 4, 9
    greedy = engine.generate(PROMPTS, new_tokens, ignore_eos=True)
    ends = sorted({greedy[0][3], greedy[1][5], greedy[3][2]}) if ended else []
    settings = Settings(new_tokens, frozenset(ends), page, prefill_tokens=8)
    found = engine.generator.search(PROMPTS, settings, Beams(beams, penalty))
    for prompt, results in zip(PROMPTS, found, strict=True):
        tokens, scores = by_transformers(model, prompt, beams, new_tokens, penalty, ends)
        want = [cut(t, ends) for t in tokens]
        got = [list(h.tokens) for h in results]
        assert got == want[: len(got)]
        torch.testing.assert_close(torch.tensor([h.score for h in results]), torch.tensor(scores[: len(got)]))
        assert len({tuple(g) for g in got}) == len(got)
    pages = engine.generator.caches.pages
    assert pages.free == pages.count
    assert pages.problems() == []


@pytest.mark.parametrize("page", [0, 4], ids=["contiguous", "paged"])
def test_pages_suffice_and_one_less_does_not(small, page):
    """As many pages as were worked out: full pages of a prompt once, the others for each beam."""
    _, engine = small
    settings = {"tokens_per_page": page, "beams": 3, "ignore_eos": True}
    want = engine.generate(PROMPTS, 8, **settings)
    needed = 12 if page == 0 else sum(n // 4 + 3 * (-(-(n + 8) // 4) - n // 4) for n in (3, 11, 1, 7))
    assert engine.generate(PROMPTS, 8, pages=needed, **settings) == want
    # The last token of a result is never cached, so a page that it alone would need stays free.
    with pytest.raises(InputError, match="pages were wanted and"):
        engine.generate(PROMPTS, 8, pages=needed // 2, **settings)
    assert engine.generator.caches.pages.free == needed // 2
    assert engine.generate(PROMPTS, 8, **settings) == want


def test_one_beam_is_greedy(small):
    _, engine = small
    settings = Settings(6)
    found = engine.generator.search(PROMPTS, settings, Beams(1))
    assert [list(f[0].tokens) for f in found] == engine.generate(PROMPTS, 6)


def test_public_name_gives_the_best_result_without_its_end(small):
    model, engine = small
    prompt = PROMPTS[1]
    end = engine.generate(prompt, 9)[4]
    engine.config["end_token_ids"] = [end]
    try:
        got = engine.generate(prompt, 9, beams=3)
        want = cut(by_transformers(model, prompt, 3, 9, 1.0, [end])[0][0], [end])
        assert got == (want[:-1] if want[-1] == end else want)
    finally:
        engine.config["end_token_ids"] = []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beams": 0}, "beams is 0, allowed are 1 to 48 with 97 tokens"),
        ({"beams": 60}, "beams is 60, allowed are 1 to 48"),
        ({"beams": 2, "length_penalty": float("nan")}, "length_penalty is nan"),
        ({"beams": 2, "stream": True}, "beams is 2 and stream is True"),
        ({"beams": 2, "temperature": 0.5}, "beams is 2 and temperature is 0.5"),
    ],
)
def test_refused(small, arguments, message):
    _, engine = small
    with pytest.raises(InputError, match=message):
        engine.generate(PROMPTS, 4, **arguments)


def test_models_with_a_window_search_over_pages(tmp_path):
    model = decoders.saved(decoders.mistral(sliding_window=6), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    got = engine.generator.search(PROMPTS[1:2], Settings(6, tokens_per_page=4), Beams(3))[0]
    tokens, _ = by_transformers(model, PROMPTS[1], 3, 6, 1.0, [])
    assert [list(h.tokens) for h in got] == tokens
    with pytest.raises(InputError, match="no program for beams of contiguous caches"):
        engine.generate(PROMPTS, 4, beams=2, tokens_per_page=0)


def test_a_search_ends_when_no_beam_can_become_better():
    """Two beams, token 1 ends: both finished results are better than what runs."""
    search = Search(Beams(2, 0.0), {1}, 9)
    sure = torch.tensor([[0.0, 9.0, 8.0, 1.0, 0.0, 0.0]])
    assert search.advance(sure) == [0, 0]
    assert [h.tokens for h in search.finished] == [(1,)]
    assert not search.over
    assert search.tokens == [[2], [3]]
    search.advance(sure.expand(2, -1))
    assert search.over
    assert [h.tokens for h in search.finished] == [(1,), (2, 1)]
