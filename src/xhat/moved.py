"""Modules that moved: the names they had before still import, with a DeprecationWarning that gives
the new one.

``xhat.analysis.similarity`` is the very module ``xhat.analysis.measures.similarity``.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# old: new, below xhat
MOVED = {
    "hooks.schedulers": "hooks.noise.schedulers",
    "hooks.draws": "hooks.noise.draws",
    "hooks.select": "hooks.points.select",
    "hooks.reduce": "hooks.points.reductions",
    "hooks.taps": "hooks.points.taps",
    "hooks.rehearse": "hooks.points.rehearsal",
    "hooks.recorder": "hooks.record.recorder",
    "hooks.encode": "hooks.record.encode",
    "hooks.rows": "hooks.record.rows",
    "hooks.sample": "hooks.batches",
    "hooks.gram": "hooks.store.grams",
    "hooks.schema": "hooks.store.schema",
    "hooks.tiles": "hooks.store.tiles",
    "hooks.layout": "hooks.store.layout",
    "hooks.lock": "hooks.store.locks",
    "hooks.memory": "hooks.store.memory",
    "hooks.writer": "hooks.store.writer",
    "hooks.failures": "hooks.store.failures",
    "hooks.edit": "hooks.edits.edit",
    "hooks.patch": "hooks.edits.patch",
    "hooks.patch_nnsight": "hooks.edits.nnsight_engine",
    "zoo.checkpoints": "zoo.load.checkpoints",
    "zoo.files": "zoo.load.files",
    "zoo.hub": "zoo.load.hub",
    "zoo.graft": "zoo.load.graft",
    "zoo.pipelines": "zoo.load.pipelines",
    "zoo.published": "zoo.load.entries",
    "zoo.registry": "zoo.load.catalogue",
    "zoo.adapters": "zoo.lora.injection",
    "zoo.lora_files": "zoo.lora.files",
    "zoo.lora_train": "zoo.lora.training",
    "zoo.slider": "zoo.lora.slider",
    "zoo.sliders": "zoo.lora.shipped",
    "zoo.sliderspace": "zoo.lora.sliderspace",
    "zoo.custom": "zoo.lora.styles",
    "zoo.inputs": "zoo.lora.inputs",
    "zoo.latents": "zoo.lora.latents",
    "zoo.attributes": "zoo.family.attributes",
    "zoo.data": "zoo.family.data",
    "zoo.render": "zoo.family.render",
    "zoo.nets": "zoo.family.networks",
    "zoo.base": "zoo.family.base",
    "zoo.vae": "zoo.family.vae",
    "zoo.distil": "zoo.family.distil",
    "zoo.dmd": "zoo.family.dmd",
    "zoo.lcm": "zoo.family.lcm",
    "zoo.turbo": "zoo.family.turbo",
    "zoo.loop": "zoo.family.loop",
    "zoo.judge": "zoo.family.judge",
    "samplers.plan": "samplers.plans.plan",
    "samplers.policy": "samplers.plans.policy",
    "samplers.explain": "samplers.plans.policy",
    "samplers.hybrid": "samplers.composite.pipeline",
    "samplers.denoiser": "samplers.composite.denoiser",
    "samplers.schedule": "samplers.composite.scheduler",
    "samplers.handover": "samplers.composite.handover",
    "samplers.timing": "samplers.plans.timing",
    "samplers.run": "samplers.composite.run",
    "samplers.facade": "samplers.composite.facade",
    "samplers.fit": "samplers.composite.fit",
    "samplers.adapters": "samplers.composite.adapters",
    "samplers.lowrank": "samplers.composite.lowrank",
    "samplers.dial": "samplers.composite.dial",
    "samplers.tap": "samplers.composite.tap",
    "samplers.cads": "samplers.rivals.cads",
    "samplers.particles": "samplers.rivals.particles",
    "samplers.teacher": "samplers.rivals.teacher",
    "samplers.modes": "samplers.rivals.modes",
    "samplers.ensemble": "samplers.rivals.ensemble",
    "samplers.adaptive": "samplers.rivals.adaptive",
    "analysis.similarity": "analysis.measures.similarity",
    "analysis.cca": "analysis.measures.cca",
    "analysis.grams": "analysis.measures.grams",
    "analysis.kernels": "analysis.measures.kernels",
    "analysis.diversity": "analysis.measures.diversity",
    "analysis.alignment": "analysis.measures.alignment",
    "analysis.lora": "analysis.measures.lora_factors",
    "analysis.front": "analysis.measures.pareto_front",
    "analysis.classification": "analysis.measures.classification",
    "analysis.maps": "analysis.traces.similarity_map",
    "analysis.layers": "analysis.traces.layers",
    "analysis.commitment": "analysis.traces.commitment",
    "analysis.probe_curves": "analysis.traces.probe_curves",
    "analysis.energy": "analysis.traces.energy",
    "analysis.effect_alignment": "analysis.traces.effect_alignment",
    "analysis.policy_traces": "analysis.traces.policy_traces",
    "analysis.arms": "analysis.sampling.arms",
    "analysis.finals": "analysis.sampling.final_latents",
    "analysis.ledger": "analysis.sampling.noise_ledger",
    "analysis.kept": "analysis.sampling.cache",
    "analysis.budget": "analysis.sampling.budget",
    "analysis.untrained": "analysis.sampling.untrained",
    "analysis.control": "analysis.sampling.control",
    "analysis.controls": "analysis.sampling.shipped_controls",
    "analysis.scores": "analysis.sampling.scores",
    "analysis.effects": "analysis.sampling.effects",
    "analysis.slider_grid": "analysis.sampling.slider_grid",
    "analysis.pairing": "analysis.sampling.pairing",
    "analysis.structure": "analysis.sampling.structure",
    "analysis.sensitivity": "analysis.sampling.sensitivity",
    "analysis.probe_sliders": "analysis.sampling.probe_sliders",
    "analysis.transfer": "analysis.sampling.dose_response",
    "analysis.demo": "analysis.experiments.collapse",
    "analysis.students": "analysis.experiments.similarity",
    "analysis.swaps": "analysis.experiments.swaps",
    "analysis.verdict": "analysis.experiments.swaps_text",
    "analysis.control_study": "analysis.experiments.transfer",
    "analysis.control_bench": "analysis.sampling.control_bench",
    "analysis.control_data": "analysis.experiments.transfer",
    "analysis.control_text": "analysis.experiments.transfer_text",
    "analysis.readout": "analysis.experiments.readout",
    "analysis.patching": "analysis.experiments.patch",
    "analysis.policy": "analysis.experiments.policy",
    "analysis.pareto": "analysis.experiments.pareto",
    "analysis.pareto_text": "analysis.experiments.pareto_text",
    "analysis.probe": "analysis.experiments.probe",
    "analysis.probe_verdict": "analysis.experiments.probe_verdict",
    "analysis.published": "analysis.experiments.paper",
    "figures.style": "figures.kit.style",
    "figures.registry": "figures.kit.registry",
    "figures.data": "figures.kit.data",
    "figures.forest": "figures.kit.forest",
    "figures.curves": "figures.kit.curves",
    "figures.report": "figures.report.page",
    "figures.player": "figures.report.wall",
    "figures.report.player": "figures.report.wall",
    "figures.probe_report": "figures.report.probe",
    "figures.tables": "figures.report.tables",
    "figures.demo_data": "figures.report.collect",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds a module under the name it had before it moved."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.removeprefix("xhat.") in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = "xhat." + MOVED[spec.name.removeprefix("xhat.")]
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=6)
        module = import_module(new)
        self._own = (module, module.__spec__, module.__loader__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The import system has put its own spec on the module: give back the one it had."""
        own, module.__spec__, module.__loader__ = self._own
        assert own is module


def install() -> None:
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
