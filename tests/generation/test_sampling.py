"""Drawn tokens: distributions, limits, seeds that reproduce, prompts that do not disturb each other."""

import decoders
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import qontext as qx
from qontext.errors import InputError
from qontext.generation.sampler import Sampler, Sampling, greedy, kept

LOGITS = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.7), (12, 0.9), (1, 0.1)])
def test_probabilities_are_those_of_transformers(temperature, top_k, top_p):
    scores = TemperatureLogitsWarper(temperature)(None, LOGITS)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    want = torch.softmax(scores, -1)
    shares, tokens = kept(LOGITS, Sampling(temperature, top_k, top_p))
    got = torch.zeros_like(want).scatter(-1, tokens, shares)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_draws_follow_the_probabilities():
    """20,000 draws; a count is off by less than five standard deviations."""
    how = Sampling(0.8, 10, 0.95, seed=3)
    shares, tokens = kept(LOGITS[:1], how)
    sampler, draws = Sampler(how), 20_000
    drawn = torch.tensor([sampler([0], LOGITS[:1])[0] for _ in range(draws)])
    for share, token in zip(shares[0].tolist(), tokens[0].tolist(), strict=True):
        spread = (draws * share * (1 - share)) ** 0.5
        assert abs(int((drawn == token).sum()) - draws * share) <= 5 * spread


def test_seeds_reproduce_and_prompts_draw_for_themselves():
    how = Sampling(1.0, seed=7)
    together = Sampler(how)
    draws = [together([0, 1, 2], LOGITS) for _ in range(20)]
    alone = Sampler(how)
    assert [alone([1], LOGITS[1:2])[0] for _ in range(20)] == [d[1] for d in draws]
    other = Sampler(Sampling(1.0, seed=8))
    assert [other([0, 1, 2], LOGITS) for _ in range(20)] != draws
    same = Sampler(how)
    rows = LOGITS[:1].expand(2, -1)
    assert [same([0], rows[:1])[0] for _ in range(20)] != [same([1], rows[:1])[0] for _ in range(20)]


def test_the_likeliest_token_alone():
    assert Sampling().chooser() is greedy
    assert Sampler(Sampling(1.0, top_k=1))([0, 1, 2], LOGITS) == greedy([0, 1, 2], LOGITS)
    assert Sampler(Sampling(1.0, top_p=1e-9))([0, 1, 2], LOGITS) == greedy([0, 1, 2], LOGITS)
    hard = torch.full((1, 4), -torch.inf)
    hard[0, 2] = 0.0
    assert Sampler(Sampling(1.0))([0], hard) == [2]


def test_generation_draws(tmp_path):
    decoders.saved(decoders.llama(), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    prompts = decoders.prompts(3, 8)
    how = {"temperature": 1.5, "top_k": 20, "seed": 4}
    first = engine.generate(prompts, 12, **how)
    assert engine.generate(prompts, 12, tokens_per_page=4, **how) == first
    assert engine.generate(prompts[0], 12, **how) == first[0]
    assert engine.generate(prompts, 12, temperature=1.5, top_k=20, seed=5) != first
    assert engine.generate(prompts, 12, temperature=1e-6) == engine.generate(prompts, 12)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Sampling(-1.0), "temperature is -1.0"),
        (Sampling(float("nan")), "temperature is nan"),
        (Sampling(1.0, -1), "top_k is -1"),
        (Sampling(1.0, top_p=0.0), "top_p is 0.0"),
        (Sampling(1.0, top_p=1.5), "top_p is 1.5"),
        (Sampling(1.0, seed=2**70), "seed is 1180591620717411303424"),
        (Sampling(0.0, 5), "top_k is 5 and top_p 1.0, but temperature is 0"),
    ],
)
def test_refused(how, message):
    with pytest.raises(InputError, match=message):
        how.chooser()
