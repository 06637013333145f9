"""How large results become."""

from types import SimpleNamespace

import torch

from qontext.runtime.magnitudes import largest_results, near_overflow


def run(batch, tap):
    for name, tensors in batch.items():
        tap(SimpleNamespace(name=name), tensors)


def test_the_largest_magnitude_over_all_batches_and_outputs_counts():
    batches = [
        {"a": (torch.tensor([1.0, -7.0]), None), "whole": (torch.tensor([9]),), "empty": (torch.zeros(0),)},
        {"a": (torch.tensor([2.0]), torch.tensor([3.0])), "b": (torch.tensor([float("nan"), -5.0]),)},
    ]
    assert largest_results(run, batches) == {"a": 7.0, "b": 5.0}


def test_steps_near_the_end_of_the_range_are_found():
    batches = [
        {"fits": (torch.tensor([30_000.0]),), "near": (torch.tensor([-33_000.0]),), "beyond": (torch.tensor([1e9]),)}
    ]
    batches.append({"endless": (torch.tensor([float("inf")]),)})
    found = near_overflow(run, batches, torch.float16)
    assert found == {"near": 33_000.0, "beyond": 1e9, "endless": float("inf")}
    assert near_overflow(run, batches, torch.bfloat16) == {"endless": float("inf")}
