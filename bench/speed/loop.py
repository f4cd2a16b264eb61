"""What one would write without a framework: PyTorch in processes, with an equal share of clients.

No check of an update, no exact sum, no round that could be void: deltas are added as they come.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(model: str, rounds: list[list[str]], processes: int) -> tuple[list[float], float]:
    """Seconds of each round, and from the start to the end of the first one."""
    started, context = time.perf_counter(), multiprocessing.get_context("spawn")
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    pipes, workers = [], []
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_worker, args=(theirs, model), daemon=True)
            worker.start()
            pipes.append(ours)
            workers.append(worker)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    import torch

    from bench.speed import task

    params = [p.detach().clone() for p in getattr(task, model)().model().parameters()]
    seconds, first = [], 0.0
    for cohort in rounds:
        begun = time.perf_counter()
        for number, pipe in enumerate(pipes):
            pipe.send((params, cohort[number::processes]))
        sums, weights = zip(*(pipe.recv() for pipe in pipes), strict=True)
        for place, param in enumerate(params):
            param += sum((each[place] for each in sums), torch.zeros_like(param)) / sum(weights)
        seconds.append(time.perf_counter() - begun)
        first = first or time.perf_counter() - started
    for pipe in pipes:
        pipe.send(None)
    for worker in workers:
        worker.join()
    return seconds, first


def _worker(pipe: Any, model: str) -> None:
    import torch

    from bench.speed import task
    from hansa.core.parts import Site

    torch.set_num_threads(1)
    of = getattr(task, model)()
    module, data = of.model(), {}
    while (order := pipe.recv()) is not None:
        start, cohort = order
        total, weight = [torch.zeros_like(p) for p in start], 0
        for client in cohort:
            if client not in data:
                train = of.data(Site(client, {})).train
                data[client] = (torch.from_numpy(train.inputs), torch.from_numpy(train.targets))
            inputs, targets = data[client]
            with torch.no_grad():
                for own, given in zip(module.parameters(), start, strict=True):
                    own.copy_(given)
            _train(module, inputs, targets)
            with torch.no_grad():
                for sum_, own, given in zip(total, module.parameters(), start, strict=True):
                    sum_ += (own - given) * len(targets)
            weight += len(targets)
        pipe.send((total, weight))


def _train(module: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    import torch

    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for batch in _batches(len(targets)):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(inputs[batch]), targets[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _batches(examples: int, size: int = 10) -> Iterator[torch.Tensor]:
    import torch

    order = torch.randperm(examples)
    for start in range(0, examples, size):
        yield order[start : start + size]
