"""A rank of a gloo group: `ranks.py RANK WORLD FOLDER` computes its share of every variant and writes it to FOLDER."""

import importlib.util
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from pretrain.losses.contrastive import VARIANTS, Ranks, all_pairs

CLIPS = 11
MODALITIES = ("text", "audio", "video")
ENDS = {1: (0, 11), 2: (0, 8, 11), 4: (0, 3, 3, 9, 11)}
"""Number of ranks -> where their clips begin and end; one of four has none."""


def load_naive():
    spec = importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def presence():
    present = {name: torch.ones(CLIPS, dtype=torch.bool) for name in MODALITIES}
    present["audio"][[1, 8]] = False
    present["video"][3] = False
    return present


def share(variant, heat, ranks):
    """This process's loss, figures and gradients, at a temperature."""
    embeddings, temperature, bias = load_naive().example(variant, CLIPS, modalities=3)
    temperature = (temperature.detach() * heat).requires_grad_()
    named = dict(zip(MODALITIES, embeddings, strict=True))
    made = all_pairs(named, presence(), temperature=temperature, variant=variant, bias=bias, ranks=ranks)
    made.loss.backward()
    result = {"loss": made.loss.detach(), "temperature": temperature.grad}
    result |= {f"gradient/{name}": value.grad for name, value in named.items()}
    result |= {} if bias is None else {"bias": bias.grad}
    for name, pair in made.pairs.items():
        result |= {
            f"{name}/loss": pair.loss,
            f"{name}/correct": pair.correct,
            f"{name}/count": torch.tensor(pair.count),
        }
    return result


def all_shares(ranks):
    """Of every variant, with plain exponentials and with large scores."""
    return {
        f"{variant}/{heat}/{name}": value
        for variant in VARIANTS
        for heat in (1.0, 0.05)
        for name, value in share(variant, heat, ranks).items()
    }


def reduce(operation):
    def all_reduce(tensor):
        total = tensor.clone()
        dist.all_reduce(total, operation)
        return total

    return all_reduce


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    rows = slice(*ENDS[world][rank : rank + 2])
    shares = all_shares(Ranks(rows, reduce(dist.ReduceOp.SUM), reduce(dist.ReduceOp.MAX)))
    save_file({name: value.clone() for name, value in shares.items()}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()
