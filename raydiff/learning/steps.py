"""How many steps a method that is trained by gradients goes on for when it learns."""

STEPS = 300
