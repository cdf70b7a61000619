"""What raydiff does on a GPU, asked in minutes on a bare machine: is it right, how fast is it, how well does it learn.

`parts` runs each part in a process of its own with a limit, `results` writes what it finds at once; `correctness`,
`speed` and `accuracy` hold the parts. No Ray, no command-line library, no network. docs/gpu.md is the manual.
"""
