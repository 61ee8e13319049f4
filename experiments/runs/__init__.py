"""What a run leaves behind: its folder, its report, and the pair to restore."""
