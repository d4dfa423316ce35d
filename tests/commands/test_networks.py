"""What the commands print about a network."""

from types import SimpleNamespace

import torch

from dit_nb.commands.networks import _describe_network


def test_parameters_precision_device_and_processes():
    layer = torch.nn.Linear(999, 2)
    alone, four = (SimpleNamespace(num_processes=n) for n in (1, 4))
    assert _describe_network(layer.parameters(), alone) == "2,000 parameters, fp32 on cpu"
    assert _describe_network(layer.parameters(), four) == "2,000 parameters, fp32 on cpu, 4 processes"
    bf16 = _describe_network(layer.parameters(), alone, torch.bfloat16)  # computes in it, by autocast
    assert bf16 == "2,000 parameters, bf16 on cpu"
    assert _describe_network(layer.half().to("meta").parameters(), alone).endswith("fp16 on meta")
