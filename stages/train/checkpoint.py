"""Checkpoints of a training in progress: continue after a crash or a preemption, on any number of ranks.

A checkpoint holds whole tensors by parameter name, in float32, whatever the ZeRO stage and the number of
ranks: nothing to convert. It is committed like every output (infra.store), so that a reader sees a whole one
or none. There is no random state to save: data order and every draw are pure functions of (seed, step).
"""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.nn.functional import pad

from infra.store import CorruptOutput, Store
from stages.train.config import STEP_DIGITS
from stages.train.divergence import skipped, streak_begins
from stages.train.engine import rank, world_size
from stages.train.lean_deepspeed import deepspeed
from stages.train.ledger import Step

logger = logging.getLogger(__name__)

STAGE = "checkpoint"
KEPT = 2
MOMENTS = ("exp_avg", "exp_avg_sq")
TENSORS, STEPS = "state.safetensors", "steps.json"
NONE, DAMAGED = -1, -2
"""In the place of a number of steps: no checkpoint, or none that is valid."""


class CheckpointError(Exception):
    """A training cannot be continued from its checkpoints."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """A training after some steps: parameters and AdamW's moments by name, and the ledger so far."""

    steps: list[Step]
    tensors: dict[str, torch.Tensor]

    def load_weights(self, root: torch.nn.Module) -> None:
        """Put the trained parameters into a module that no engine holds yet."""
        with torch.no_grad():
            for name, parameter in _trained(root):
                parameter.copy_(self.tensors[name])

    def load_optimizer(self, engine: deepspeed.DeepSpeedEngine) -> None:
        """Put float32 weights and moments into the optimiser of a fresh engine, and check that they arrived.

        Raises CheckpointError for a tensor that reads back differently.
        """
        _make_optimizer_state(engine, made=_made(self.steps))
        for name, parameter in _trained(engine.module):
            _set_state(engine, parameter, {key: self.tensors[_key(name, key)] for key in ("", *MOMENTS)})
        for name, tensor in _whole_state(engine):
            if not torch.equal(tensor, self.tensors[name].to(tensor.device)):
                raise CheckpointError(f"{name} did not survive its way into the optimiser: please report it")


class Checkpoints:
    """The checkpoints of one training, named by its fingerprint; every rank makes the same calls."""

    def __init__(self, store: Store, training: str) -> None:
        self._store = store
        self._training = training
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._pending: Future | None = None

    def newest(self, *, below: int) -> TrainingState | None:
        """The newest checkpoint of fewer than `below` steps that is byte for byte as it was written.

        None if there is none. A damaged one is set aside with a warning, and the one before it used. Raises
        CheckpointError where there are some and none is valid: starting again would hide the loss.
        """
        # A number: torch sends any other object as a pickle.
        chosen = torch.tensor(self._newest_steps(below) if rank() == 0 else NONE)
        distributed.broadcast(chosen, src=0)
        if chosen == NONE:
            return None
        if chosen == DAMAGED:
            raise CheckpointError(
                f"no checkpoint of training {self._training} is valid; they are set aside: "
                "run again to start from the beginning"
            )
        folder = self._store.find(STAGE, self._name(int(chosen))).path
        steps = [Step(**step) for step in json.loads((folder / STEPS).read_text())]
        return TrainingState(steps=steps, tensors=load_file(folder / TENSORS))

    def _newest_steps(self, below: int) -> int:
        """Steps of the newest valid checkpoint, DAMAGED if none of some is valid, NONE if there are none."""
        names = self._names(below)
        for name in reversed(names):
            try:
                self._store.find(STAGE, name)
            except CorruptOutput as error:
                logger.warning("checkpoint %s is set aside, the one before it is tried: %s", name, error)
                self._store.set_aside(STAGE, name)
            else:
                return int(name.rsplit("-", 1)[1])
        return DAMAGED if names else NONE

    def _names(self, below: int) -> list[str]:
        """Names of this training's checkpoints of fewer steps, oldest first."""
        limit = self._name(below)
        return [name for name in self._store.names(STAGE) if self._name(0) <= name < limit]

    def _name(self, steps: int) -> str:
        return f"{self._training}-{steps:0{STEP_DIGITS}d}"

    def save(self, engine: deepspeed.DeepSpeedEngine, steps: Sequence[Step]) -> None:
        """Copy the state now and commit it in the background, after the one before it."""
        if not _made(steps):
            _make_optimizer_state(engine, made=0)
        tensors = {}
        for name, tensor in _whole_state(engine):
            if rank() == 0:
                tensors[name] = tensor.cpu().contiguous()
        self.wait()
        if rank() == 0:
            self._pending = self._writer.submit(self._write, tensors, list(steps))

    def wait(self) -> None:
        """Return when the newest checkpoint is committed. Raises what its writer raised."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def forget_streak(self, steps: Sequence[Step]) -> None:
        """Remove what was saved since the first of the recent steps that were skipped."""
        self.wait()
        if rank() != 0:
            return
        first, last = (self._name(number) for number in (streak_begins(steps), len(steps)))
        for name in self._store.names(STAGE):
            if first <= name <= last:
                self._store.remove(STAGE, name)

    def _write(self, tensors: dict[str, torch.Tensor], steps: list[Step]) -> None:
        name = self._name(len(steps))
        if name in self._store.names(STAGE):
            self._store.remove(STAGE, name)  # equal but for its times
        with self._store.attempt(STAGE, name) as attempt:
            save_file(tensors, attempt.path / TENSORS)
            (attempt.path / STEPS).write_text(json.dumps([asdict(step) for step in steps]))
            attempt.commit(inputs={}, configuration={}, counts={"steps": len(steps)})
        # In a streak of skipped steps those from before it stay, however many come.
        for older in self._names(streak_begins(steps))[:-KEPT]:
            self._store.remove(STAGE, older)


def _made(steps: Sequence[Step]) -> int:
    return len(steps) - len(skipped(steps))


def _trained(root: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in root.named_parameters() if parameter.requires_grad]


def _key(name: str, state: str) -> str:
    return f"{name}/{state}" if state else name


def _whole_state(engine: deepspeed.DeepSpeedEngine) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained parameter and its moments, whole and in float32; a collective."""
    for name, parameter in _trained(engine.module):
        if engine.zero_optimization_stage() == 0:
            state = engine.optimizer.state[parameter]
            yield name, parameter.detach().clone()
            yield from ((_key(name, key), state[key].clone()) for key in MOMENTS)
        else:
            yield name, deepspeed.utils.safe_get_full_fp32_param(parameter)
            yield from (
                (_key(name, key), deepspeed.utils.safe_get_full_optimizer_state(parameter, key))
                for key in MOMENTS
            )


def _set_state(
    engine: deepspeed.DeepSpeedEngine, parameter: torch.nn.Parameter, values: dict[str, torch.Tensor]
) -> None:
    if engine.zero_optimization_stage() == 0:
        for key in MOMENTS:
            engine.optimizer.state[parameter][key].copy_(values[key])
        return
    values = {key: value.to(parameter.device) for key, value in values.items()}
    if engine.zero_optimization_stage() == 3:
        # DeepSpeed's setters of whole tensors forget the padding of the last rank's part.
        size = deepspeed.utils.safe_get_local_fp32_param(parameter).numel()
        parts = {
            key: pad(value.flatten(), (0, size * world_size() - value.numel()))[size * rank() :][:size]
            for key, value in values.items()
        }
        deepspeed.utils.safe_set_local_fp32_param(parameter, parts[""])
        for key in MOMENTS:
            deepspeed.utils.safe_set_local_optimizer_state(parameter, parts[key], key)
        return
    deepspeed.utils.safe_set_full_fp32_param(parameter, values[""])
    for key in MOMENTS:
        deepspeed.utils.safe_set_full_optimizer_state(parameter, values[key], key)


def _make_optimizer_state(engine: deepspeed.DeepSpeedEngine, *, made: int) -> None:
    """Give AdamW the state that its first step would make, and the number of steps that were made.

    DeepSpeed can only overwrite what exists.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        inner, partitions = engine.optimizer, [parameter for _, parameter in _trained(engine.module)]
    else:
        inner = engine.optimizer.optimizer
        partitions = (
            engine.optimizer.fp32_partitioned_groups_flat
            if stage == 3
            else engine.optimizer.single_partition_of_fp32_groups
        )
    for partition in partitions:
        inner.state[partition] = {"step": torch.tensor(float(made))} | {
            key: torch.zeros_like(partition) for key in MOMENTS
        }
    if stage in (1, 2):
        engine.optimizer._lazy_init_hp_params_optimizer_state()
