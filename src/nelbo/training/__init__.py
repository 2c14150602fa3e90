"""One run: its recipe, its folder, its state, a step, the loop; training and loading."""
