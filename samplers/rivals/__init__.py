"""Other ways to more diversity, one file each, under one interface."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "rival": "xhat.samplers.rivals.registry",
    "InapplicableRival": "xhat.samplers.rivals.registry",
    "RIVALS": "xhat.samplers.rivals.registry",
    "CADS": "xhat.samplers.rivals.cads",
    "ParticleGuidance": "xhat.samplers.rivals.particles",
    "FeatureParticles": "xhat.samplers.rivals.feature_particles",
    "TeacherGuidance": "xhat.samplers.rivals.teacher",
    "ModeGuidance": "xhat.samplers.rivals.modes",
    "FeatureDispersal": "xhat.samplers.rivals.dispersal",
    "ComponentNoise": "xhat.samplers.rivals.stride",
    "GroupInference": "xhat.samplers.rivals.group",
    "SpectralNoise": "xhat.samplers.rivals.spectrum",
    "EntropyGuidance": "xhat.samplers.rivals.entropy",
    "EmbeddingNoise": "xhat.samplers.rivals.embedding",
    "diverse": "xhat.samplers.rivals.diverse_set",
    "Adaptive": "xhat.samplers.rivals.adaptive",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
