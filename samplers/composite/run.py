"""One call of a hybrid pipeline: its plan laid out step by step, and what its two halves must know
of each other.

The pipeline holds a denoiser and a scheduler, and each is called in turn. Both read the same
:class:`Run`."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor

from xhat.hooks.noise.levels import NoiseLevel, kind, noise_level, noise_levels
from xhat.samplers.composite.guidance import FirstPass
from xhat.samplers.composite.handover import (
    CLEAN,
    DIVISIBLE,
    RENOISING,
    check_divisible,
    close,
    ending,
    landing,
    respace,
)
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.schedule import by_hand, scheduled
from xhat.samplers.plans.timing import Timing

SHARED_NOISE_SEED = 0


@dataclass(frozen=True)
class Entry:
    """One step of a run: ``step`` as its own scheduler counts it, from ``level`` to ``target``.

    ``noise`` is None where the scheduler makes the step itself; else the step is made from x̂₀ and
    that noise. ``then`` is the scheduler of the step that follows, in whose space the latents are
    to be left."""

    segment: Segment
    scheduler: Any
    step: int
    level: NoiseLevel
    then: Any
    target: NoiseLevel = CLEAN
    noise: str | None = None
    x0: str | None = None

    @property
    def timestep(self) -> torch.Tensor:
        return self.scheduler.timesteps[self.step]


class Estimator(Protocol):
    """x̂₀ by any of the pipeline's models, at any noise level, under the conditioning of this
    call.
    """

    scheduler: Any

    def x0_of(
        self,
        name: str,
        x: torch.Tensor,
        sigma: float,
        guidance_scale: float,
        rows: Sequence[int] | None = None,
    ) -> torch.Tensor: ...


@dataclass
class Run:
    """The entries of a plan, the position among them, and what was seen so far of this call's
    samples.

    ``evaluations`` counts network evaluations a sample; ``changed`` has the steps that each tap
    changed, by its place among the taps; ``start`` is the noise, in VP, that a tap put in the place
    of ``x_T``, by which samples are still told apart; ``models`` is there once the denoiser was
    first called; ``first_pass`` is the conditional call of the last step that was made of two."""

    entries: list[Entry]
    position: int = 0
    evaluations: float = 0
    changed: dict[int, set[int]] = field(default_factory=dict)
    x_T: torch.Tensor | None = None
    start: torch.Tensor | None = None
    condition: torch.Tensor | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    models: Estimator | None = None
    first_pass: FirstPass | None = None

    @property
    def entry(self) -> Entry:
        """The step now under way; the last one after the end."""
        return self.entries[min(self.position, len(self.entries) - 1)]

    def begin(self, x_T: torch.Tensor, condition: torch.Tensor | None = None) -> None:
        """Note the first latents, and the conditioning that tells samples of one prompt from those
        of another.
        """
        if self.x_T is None:
            self.x_T, self.condition = x_T, condition
        elif self.condition is None:
            self.condition = condition

    @property
    def samples(self) -> int:
        assert self.x_T is not None, "a run has latents before anything is asked of them"
        return len(self.x_T)

    @property
    def keys(self) -> list[int]:
        """A number for each sample, made of its first latents: the same whatever batch the sample
        is in.
        """
        if "keys" not in self.memory:
            assert self.x_T is not None
            rows = self.x_T.detach().float().cpu().contiguous()
            self.memory["keys"] = [zlib.crc32(row.numpy().tobytes()) for row in rows]
        return self.memory["keys"]

    @property
    def share(self) -> float:
        """The timestep now under way as a share of the training steps: 1 at pure noise, 0 at the
        end.
        """
        entry = self.entry
        return entry.level.timestep / entry.scheduler.config.num_train_timesteps

    @property
    def next_share(self) -> float:
        """The same of the timestep that this step goes to."""
        entry = self.entry
        return entry.target.timestep / entry.then.config.num_train_timesteps

    @property
    def groups(self) -> list[list[int]]:
        """Positions in the batch of the samples of each prompt."""
        if "groups" not in self.memory:
            rows, condition = self.samples, self.condition
            labels = [0] * rows
            if condition is not None and len(condition) == rows:
                labels = torch.unique(condition.flatten(1), dim=0, return_inverse=True)[1].tolist()
            members = [
                [i for i, label in enumerate(labels) if label == group]
                for group in sorted(set(labels))
            ]
            self.memory["groups"] = members
        return self.memory["groups"]

    def draw(self, like: torch.Tensor, stream: str) -> torch.Tensor:
        """Unit normal noise that belongs to each sample and to ``stream`` alone: no generator is
        advanced.

        Two runs that start from the same x_T draw the same, whatever batches the samples are in.
        """
        return torch.stack(self.draw_each(list(like), stream))

    def draw_each(self, likes: Sequence[torch.Tensor], stream: str) -> list[torch.Tensor]:
        """The same for a list of tensors of several shapes, one a sample."""
        seeds = [zlib.crc32(f"{stream} {self.position} {key}".encode()) for key in self.keys]
        pairs = zip(likes, seeds, strict=True)
        return [torch.randn(x.shape, generator=_generator(s)).to(x) for x, s in pairs]

    def note_change(self, tap: int) -> None:
        """Note that a tap changed the step now under way."""
        self.changed.setdefault(tap, set()).add(self.position)

    def fresh(self, like: torch.Tensor, generator: Any) -> torch.Tensor:
        """New noise: of the generators the pipeline passes on, else of each sample's own stream."""
        if generator is None:
            return self.draw(like, "fresh")
        return randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def shared_noise(like: torch.Tensor) -> torch.Tensor:
    """The one noise that every sample, step and run shares; it depends on the latents' shape
    alone.
    """
    drawn = torch.randn((1, *like.shape[1:]), generator=_generator(SHARED_NOISE_SEED))
    return drawn.to(like.device, like.dtype).expand_as(like)


def _generator(seed: int) -> torch.Generator:
    assert 0 <= seed < 2**32, "the generator looks at the low 32 bits of a seed only"
    return torch.Generator("cpu").manual_seed(seed)


def lay_out(
    plan: Plan,
    schedulers: Mapping[str, Any],
    device: Any = None,
    timings: Mapping[str, Timing] | None = None,
) -> list[Entry]:
    """Every step of a plan, with a scheduler of its own for each stretch, re-spaced so that
    hand-overs are exact.

    ``timings``: model → how its pipeline sets its timesteps. Raises ValueError for a scheduler that
    cannot be run in part, and where the noise does not fall from one segment to the next."""
    timings = timings or {}
    entries: list[Entry] = []
    for before, segment in zip((None, *plan.segments), plan.segments, strict=False):
        if before is not None and segment.continues(before):
            scheduler = entries[-1].scheduler
        else:
            scheduler = scheduled(
                schedulers[segment.model], segment, device, timings.get(segment.model, Timing())
            )
        entries += [
            Entry(
                segment,
                scheduler,
                step,
                noise_level(scheduler, scheduler.timesteps[step], step),
                scheduler,
            )
            for step in _steps(segment, scheduler, alone=len(plan.segments) == 1)
        ]
    return [_closed(entry, after) for entry, after in itertools.zip_longest(entries, entries[1:])]


def _steps(segment: Segment, scheduler: Any, alone: bool) -> range:
    """The segment's steps among the scheduler's; the last inference step may stand for several
    evaluations.
    """
    whole = segment.start == 0 and segment.stop == segment.num_inference_steps
    if kind(scheduler) not in DIVISIBLE:
        if not (alone and whole and segment.noise is None):
            check_divisible(scheduler)
        return range(len(noise_levels(scheduler)))
    end = len(scheduler.timesteps) if segment.stop == segment.num_inference_steps else segment.stop
    return range(segment.start, end)


def _closed(entry: Entry, after: Entry | None) -> Entry:
    """The entry with where it must end, and whether its scheduler takes it there."""
    segment = entry.segment
    if after is None:
        return replace(entry, noise=segment.noise) if segment.noise else _ended(entry)
    leaves = after.segment is not segment
    if leaves and not after.level.sigma < entry.level.sigma:
        raise ValueError(
            f"the noise must fall from step to step: {segment.model!r} is last evaluated at σ "
            f"= {entry.level.sigma:.4g}"
            f" and hands over to {after.segment.model!r} at σ = {after.level.sigma:.4g}"
        )
    x0 = segment.x0 if leaves else None
    entry = replace(entry, then=after.scheduler, target=after.level, x0=x0, noise=segment.noise)
    follows = after.scheduler is entry.scheduler and not by_hand(entry.scheduler, segment)
    if x0 is None and (segment.noise or follows or _arrives(entry)):
        return entry
    return replace(entry, noise=segment.noise or _own_way(entry))


def _ended(entry: Entry) -> Entry:
    """The last entry of a plan: its scheduler's own end, also where a grid that was put into it has
    its last timestep further above that than one of the scheduler's strides.
    """
    if not by_hand(entry.scheduler, entry.segment):
        return entry
    end = ending(entry.scheduler)
    return (
        entry
        if close(landing(entry.scheduler, entry.step), end.sigma)
        else replace(entry, noise="own", target=end)
    )


def _arrives(entry: Entry) -> bool:
    """Whether the scheduler's own step ends at the target, by itself or re-spaced."""
    if close(landing(entry.scheduler, entry.step), entry.target.sigma):
        return True
    return respace(entry.scheduler, entry.step, entry.target)


def _own_way(entry: Entry) -> str:
    return "fresh" if kind(entry.scheduler) in RENOISING else "own"
