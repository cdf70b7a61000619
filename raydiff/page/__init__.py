"""The inspection page: plain files that a browser gets as they are (`raydiff.scoring.http_app` serves them)."""
