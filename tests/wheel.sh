#!/bin/sh
# Builds the sdist, a wheel from it, and uses that wheel in an environment of its own, outside the repository.
# The dependencies are borrowed from the tested environment, by path, so that nothing is downloaded twice.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(cd "$root" && "$PYTHON" -c 'import sys; print(sys.executable)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --quiet --outdir "$work/dist" "$root"
"$python" -m venv --without-pip "$work/env"
"$python" -m pip --disable-pip-version-check install --quiet --no-deps --target "$work/site" "$work"/dist/*.whl
cd "$work"
borrowed=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PYTHONPATH="$work/site:$borrowed" "$work/env/bin/python" - "$work/site" <<'PY'
import importlib
import sys

import xhat

assert xhat.__file__.startswith(sys.argv[1]), xhat.__file__
for name in ("hooks.trace", "samplers.composite.pipeline", "zoo.pairs", "zoo.lora.shipped", "probes.features", "analysis.experiments.collapse",
             "figures.kit.registry", "figures.report.render", "commands.demo", "cli", "samplers.hybrid"):  # the last by its name before the move
    importlib.import_module(f"xhat.{name}")
pair = xhat.load_pair("demo")
assert set(pair.loaders) > {"base"}
assert any(figure.there for figure in xhat.figures.kit.registry.figures()) and xhat.zoo.lora.shipped.shipped()
print("wheel: imported", xhat.__version__, "with", ", ".join(pair.loaders))
PY
