"""Learning from verdicts: what to look at next, a model that knows better, what it would have changed."""
