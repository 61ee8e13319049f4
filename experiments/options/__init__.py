"""Options of scripts, by words and numbers that mean the same in all of them."""
