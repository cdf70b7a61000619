"""Looking through the score table of a finished archive, however large, in a browser (docs/review.md)."""
