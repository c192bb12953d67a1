"""Several one-thread processes that train one network: gradients are averaged once a step.

On a machine whose cores are shared, one process with two threads waits at the end of every operation for
the slower core; processes that meet only once a step lose far less."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


class Crew:
    """This process among its likes. `average` makes gradients (and one number) the same everywhere."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.buffer: torch.Tensor | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    @torch.no_grad()
    def average(self, parameters: list[torch.nn.Parameter], number: float) -> float:
        """Replaces every gradient by the mean over the crew; returns the mean of `number`."""
        if self.size == 1:
            return number
        flat = [p.grad.reshape(-1) for p in parameters if p.grad is not None]
        buffer = torch.cat([*flat, torch.tensor([number])])
        dist.all_reduce(buffer)
        buffer /= self.size
        start = 0
        for p in parameters:
            if p.grad is not None:
                p.grad.copy_(buffer[start : start + p.numel()].view_as(p))
                start += p.numel()
        return buffer[-1].item()

    @torch.no_grad()
    def agree(self, parameters: list[torch.nn.Parameter]) -> None:
        """Everyone starts from the first one's values."""
        if self.size > 1:
            for p in parameters:
                dist.broadcast(p.data, 0)


def _work(rank: int, size: int, meeting: str, job: Callable, settings: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    job(crew=Crew(rank, size), **settings)
    dist.barrier()
    dist.destroy_process_group()


def run(job: Callable, processes: int, **settings) -> None:
    """Calls job(crew=..., **settings) in that many processes (in this one where it is one)."""
    if processes == 1:
        job(crew=Crew(), **settings)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (processes, str(Path(folder) / "meeting"), job, settings), nprocs=processes)
