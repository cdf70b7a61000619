"""The command line: `raydiff index`, `train`, `score`, `serve`, `review` and others; `raydiff --help` lists them.

Commands lie in the `*_command.py` and `*_commands.py`, what several of them take in `options.py`; `command_line.py`
puts them together.
"""

from raydiff.cli.command_line import app, main, run

__all__ = ["app", "main", "run"]
