"""What scores are worth where there are labels: the metrics of a score table and its maps."""
