"""The command line. Each command is a thin client of the public functions."""

from __future__ import annotations

import argparse
import io
import os
import sys
from importlib import import_module

from xhat.commands.parser import Parser

DESCRIPTION = """\
Where a distilled diffusion model loses the diversity of its base, and how to give it back.

MODEL is an embedded name (demo/base, demo/dmd, …), a published one (sdxl, sdxl/dmd2, …: `xhat
models` lists them), a diffusers folder, or a hub name."""

EXAMPLES = """examples:
  xhat demo                   trace the embedded pair, print the table, write the report
  xhat explore runs/demo      every seed of every model at one noise level, in a page
  xhat figures --list         what can be redrawn without a model; `xhat report` to read it
  xhat probe demo/dmd --base demo/base --out runs/probe
                              does a checkpoint collapse, and which plan samples it best
  xhat probe demo/base demo/dmd demo/pruned --out runs/lineage
                              what each stage of a lineage loses
  xhat plan-study demo/dmd    how many prompts and seeds, how long, for an effect to be told
  xhat swaps --pair demo/dmd  which step decides: the base, the noise, or the step left out
  xhat credit                 what the base adds at each step, over all patterns of the steps
  xhat patch                  the base's activations of step one in the student, layer by layer
  xhat readout                when an attribute can be read, base against student
  xhat policy fit --budget 1.2
                              the plan that traces of base and student recommend, and why
  xhat pareto --pair demo/dmd every way to more diversity against what it costs
  xhat similarity             where students' representations leave the base's
  xhat slider apply demo/base demo/dmd --slider square
                              one slider on both, by scale
  xhat transfer               do sliders work in the models they were not trained on
  xhat reproduce --dry-run    the paper's tables on its own pairs: what is missing, what it takes
  xhat models                 the embedded family, and published pairs with what they need
  xhat points demo/base       what can be hooked
  xhat trace demo/dmd --prompts "a planet" "a critter" --seeds 0:64 --hooks h "up.*" \\
      --store runs/dmd.zarr   x̂₀ of every step, with readings of the layers
"""

# in the order of the help; each is a file in commands/
COMMANDS = (
    "demo",
    "explore",
    "figures",
    "report",
    "similarity",
    "tables",
    "models",
    "points",
    "trace",
    "probe",
    "regime",
    "plan-study",
    "swaps",
    "credit",
    "patch",
    "readout",
    "policy",
    "pareto",
    "slider",
    "transfer",
    "antidistil",
    "reproduce",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. A user's mistake is one line on stderr and
    status 2.
    """
    for stream in (sys.stdout, sys.stderr):  # σ and x̂₀ on a terminal that knows neither
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv)
    os.environ.setdefault(
        "TRANSFORMERS_VERBOSITY", "error"
    )  # it warns of image processors that are not used
    try:
        status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who read has enough, as in `xhat models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"xhat: {_text(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xhat: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def _text(error: ValueError | OSError) -> str:
    """An error in a line; of the system's, whose it is and what."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="xhat", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"xhat.commands.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.arguments(command)
        command.set_defaults(run=module.run)
    return parser
