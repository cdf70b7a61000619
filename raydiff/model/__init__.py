"""A trained model: how it scores, when it alarms, and the folder that it lies in. No Ray.

Nothing is imported here: who only passes on scores or thresholds (`scored`, `calibration`) need not load torch.
"""
