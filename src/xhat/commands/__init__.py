"""The commands of ``xhat``, one file each: ``HELP``, ``arguments(parser)``, ``run(args)``."""
