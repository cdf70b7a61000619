"""The pages of `raydiff serve` and `raydiff review`: plain files that a browser gets as they are (`scoring.site`)."""
