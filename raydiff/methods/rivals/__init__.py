"""Rivals: methods of others, as anomalib (extra `peers`) has them, behind raydiff's interface.

They train, score, calibrate and stand in tables as any method does, so that a table holds them against ours on the same
images, split, weights and metrics. What they compute is anomalib's: its torch models and losses, with maps and image
scores as these give them; so their maps are not told in deviations from normals (`Method.as_published`). What is
raydiff's are the images and their size, the backbone's weights, and, for those with gradients, the training loop: AdamW
with the rival's own learning rate, gradients clipped.

Not here: EfficientAD and AnomalyDINO, whose networks' weights anomalib fetches from the network and takes from nowhere
else; Dinomaly and INP-Former, whose losses and learning rates follow schedules of their own trainers.
"""
