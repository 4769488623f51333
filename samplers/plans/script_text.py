"""The text of the script that :mod:`xhat.samplers.plans.script` fills in."""

TEXT = '''"""Pictures by several diffusion models in turn, made with diffusers alone.

$plan

Written by xhat $xhat for diffusers $diffusers and torch $torch: under these versions the pictures
are those of xhat's hybrid, to the bit.
"""

import copy
import inspect
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

PROMPTS = $prompts
SEEDS = $seeds  # of each prompt
CALL = $call
DTYPE, DEVICE = $dtype, "cpu"
OUT = Path("pictures")


class Step(NamedTuple):
    """A step of the plan. ``own``: which step of its scheduler's it is. ``noise``: None where that
    scheduler makes it; else it is made from x0, with that noise. x_t = a·x0 + b·noise, (a, b)
    being ``here`` before the step and ``there`` after it. ``carry``: what the latents are
    multiplied by after a scheduler's own step, for the scheduler that follows."""

    network: str
    scheduler: int
    own: int
    guidance: float
    noise: str | None = None
    here: tuple[float, float] | None = None
    there: tuple[float, float] | None = None
    predicts: str = ""
    alpha_bar: float = 1.0
    keeps_x0: bool = True
    carry: float | None = None


STEPS = [
$steps
]
GUIDED = $guided  # whether the pipeline runs the negative prompt beside the prompt
TAKES = $takes  # networks that take their guidance as an input, and how
MU = $mu  # the shift of noise levels that belongs to the picture's size


def make_schedulers():
    """The scheduler of each stretch of steps, at the plan's noise levels."""
$schedulers
    return [$names]


class PlanScheduler:
    """What the pipeline asks of its scheduler, answered by the scheduler of each step."""

    order = 1

    def __init__(self):
        self.init_noise_sigma = $init_noise_sigma
        self.set_timesteps()
        self.config = self.schedulers[STEPS[0].scheduler].config

    def set_timesteps(self, num_inference_steps=None, device=None, mu=None, sigmas=None):
        """The plan has them all: what is asked for is not looked at."""
        if mu is not None and MU is not None and abs(mu - MU) > 1e-6:
            raise ValueError("this script is for pictures of another size: write it for this one")
        self.schedulers, self.position = make_schedulers(), 0
        times = [self.schedulers[s.scheduler].timesteps[s.own] for s in STEPS]
        if len({t.dtype for t in times}) > 1:
            times = [t.float() for t in times]
        self.timesteps = torch.stack(times).to(device or "cpu")

    def set_begin_index(self, begin_index=0):
        first = self.schedulers[STEPS[0].scheduler]
        if STEPS[0].own == 0 and hasattr(first, "set_begin_index"):
            first.set_begin_index(0)

    def now(self):
        step = STEPS[self.position]
        scheduler = self.schedulers[step.scheduler]
        return step, scheduler, scheduler.timesteps[step.own]

    def enter(self, step, scheduler):
        if step.own > 0 and getattr(scheduler, "step_index", step.own) != step.own:
            scheduler.set_begin_index(step.own)
            scheduler._step_index = None

    def scale_model_input(self, sample, timestep=None):
        step, scheduler, t = self.now()
        if not hasattr(scheduler, "scale_model_input"):
            return sample
        self.enter(step, scheduler)
        return scheduler.scale_model_input(sample, t)

    def step(self, model_output, timestep, sample, eta=None, generator=None, return_dict=True):
        step, scheduler, t = self.now()
        if step.noise is None:
            self.enter(step, scheduler)
            known = inspect.signature(scheduler.step).parameters
            given = {"eta": eta, "generator": generator}
            given = {k: v for k, v in given.items() if v is not None and k in known}
            x = scheduler.step(model_output, t, sample, **given, return_dict=False)[0]
            if step.carry is not None:
                x = (x.float() * step.carry).to(x.dtype)
        else:
            x = self.from_x0(step, model_output, sample, generator).to(sample.dtype)
        self.position += 1
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def from_x0(self, step, output, x, generator):
        """The step made from x0: x' = a'·x0 + b'·noise."""
        given = output
        if x.dtype in (torch.float16, torch.bfloat16):
            x, output = x.float(), output.float()
        if output.shape[1] == 2 * x.shape[1]:  # a variance beside the prediction
            output = output.chunk(2, dim=1)[0]
        a, b = step.here
        if step.predicts == "epsilon":
            x0 = (x - b * output) / a
        elif step.predicts == "v_prediction":
            signal, noise = step.alpha_bar**0.5, (1 - step.alpha_bar) ** 0.5
            x0 = (signal / (a * a + b * b) ** 0.5) * x - noise * output
        elif step.predicts == "flow_prediction":
            x0 = x - b * output
        else:
            x0 = output
        if step.there is None:
            return x0
        if step.noise == "fresh":
            noise = randn_tensor(
                given.shape, generator=generator, device=given.device, dtype=given.dtype
            ).to(x0.dtype)
        elif step.noise == "shared":
            one = torch.randn((1, *x0.shape[1:]), generator=torch.Generator().manual_seed(0))
            noise = one.to(x0).expand_as(x0)
        else:
            noise = (x - a * x0) / b
        a, b = step.there
        return a * (x0 if step.keeps_x0 else torch.zeros_like(x0)) + b * noise


def route(pipe, networks):
    """Have the pipeline's denoiser answer with the network of the step now under way."""
    slot = pipe.$slot
    calls = {name: (slot.forward if net is slot else net) for name, net in networks.items()}
    names = $arguments

    def half(value, rows):
        """The conditional half of every tensor that has one."""
        if isinstance(value, torch.Tensor):
            return value[rows // 2 :] if value.ndim and len(value) == rows else value
        if isinstance(value, dict):
            return {k: half(v, rows) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(half(v, rows) for v in value)
        return value

    def forward(*args, return_dict=True, **kwargs):
        step, inputs = pipe.scheduler.now()[0], {**dict(zip(names, args)), **kwargs}
        x, how = inputs[names[0]], TAKES.get(step.network)
        if how is None and inputs.get("guidance") is not None:
            inputs["guidance"] = None
        elif how == "guidance":
            scale = torch.full([1], step.guidance, device=x.device, dtype=torch.float32)
            inputs["guidance"] = scale.expand(len(x))
        elif how is not None:
            w = torch.tensor(step.guidance - 1).repeat(len(x))
            embedded = pipe.get_guidance_scale_embedding(w, embedding_dim=how)
            inputs["timestep_cond"] = embedded.to(device=x.device, dtype=x.dtype)
        if not GUIDED:
            output = calls[step.network](**inputs, return_dict=False)[0]
        elif step.guidance > 1 and how is None:
            uncond, cond = calls[step.network](**inputs, return_dict=False)[0].chunk(2)
            output = uncond + step.guidance * (cond - uncond)
        else:
            output = calls[step.network](**half(inputs, len(x)), return_dict=False)[0]
        if GUIDED:  # u + g·(c − u) of two halves that are equal is either of them
            output = torch.cat([output, output])
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    slot.forward = forward


def read(file):
    """The tensors of a file of weights."""
    if str(file).endswith(".safetensors"):
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def filled(network, state):
    """A network like this one with other weights; with an input for guidance if they have it."""
    cond = state.get("time_embedding.cond_proj.weight")
    if cond is None:
        other = copy.deepcopy(network)
    else:
        config = {**network.config, "time_cond_proj_dim": cond.shape[1]}
        other = type(network).from_config(config).to(network.device, network.dtype).eval()
    other.load_state_dict(state)
    return other


def load():
    """The pipeline, with the plan's networks and schedule in it."""
$loading
    route(pipe, networks)
    pipe.scheduler = PlanScheduler()
    return pipe


if __name__ == "__main__":
    pipe = load()
    OUT.mkdir(exist_ok=True)
    for p, prompt in enumerate(PROMPTS):
        for seed in SEEDS:
            generator = torch.Generator("cpu").manual_seed(seed)
            image = pipe(prompt, generator=generator, **CALL).images[0]
            image.save(OUT / f"{p:03d}-{seed:06d}.png")
'''
