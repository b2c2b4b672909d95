"""The steps of a cycle, one file each; `perennial.cycle` tells the story they make."""
